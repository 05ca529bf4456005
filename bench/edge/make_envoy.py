"""Writes Envoy's configuration as JSON: plain, TLS 1.3, jwt_authn with its cache, and jwt_authn with thirty rbac policies.

`python make_envoy.py DIR` prints it. Python and not a template, because Envoy wants the same connection manager four times.
"""
import json
import sys
from pathlib import Path

RULES = 30
TYPE = "type.googleapis.com/envoy.extensions.filters.http"


def jwt_filter(jwks: str) -> dict:
    provider = {
        "issuer": "https://issuer.bench.example", "audiences": ["bench"], "local_jwks": {"inline_string": jwks},
        "payload_in_metadata": "token", "jwt_cache_config": {"jwt_cache_size": 1000},
    }
    rule = {"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}
    config = {"@type": f"{TYPE}.jwt_authn.v3.JwtAuthentication", "providers": {"bench": provider}, "rules": [rule]}
    return {"name": "envoy.filters.http.jwt_authn", "typed_config": config}


def rbac_filter() -> dict:
    def policy(number: int) -> dict:
        group = {
            "filter": "envoy.filters.http.jwt_authn", "path": [{"key": "token"}, {"key": "groups"}],
            "value": {"list_match": {"one_of": {"string_match": {"exact": f"group-{number}"}}}},
        }
        allowed = {"and_rules": {"rules": [
            {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
            {"url_path": {"path": {"prefix": f"/area-{number}/"}}},
        ]}}
        return {"permissions": [allowed], "principals": [{"metadata": group}]}

    policies = {f"rule-{number:02}": policy(number) for number in range(RULES)}
    config = {"@type": f"{TYPE}.rbac.v3.RBAC", "rules": {"action": "ALLOW", "policies": policies}}
    return {"name": "envoy.filters.http.rbac", "typed_config": config}


def listener(name: str, port: int, filters: list, tls: dict | None = None) -> dict:
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{TYPE}.router.v3.Router"}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "origin", "timeout": "60s"}}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name, "codec_type": "HTTP1", "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [*filters, router],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    if tls:
        chain["transport_socket"] = {"name": "tls", "typed_config": tls}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [chain]}


def main() -> None:
    folder = Path(sys.argv[1])
    jwks = (folder / "jwks.json").read_text()
    tls = {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
            "tls_certificates": [{
                "certificate_chain": {"filename": str(folder / "edge.pem")}, "private_key": {"filename": str(folder / "edge.key")},
            }],
        },
    }
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 19080}}}}
    limits = [{"priority": "DEFAULT", "max_connections": 8000, "max_pending_requests": 8000, "max_requests": 8000}]
    cluster = {
        "name": "origin", "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": {"thresholds": limits},
        "load_assignment": {"cluster_name": "origin", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listeners = [
        listener("plain", 19301, []), listener("tls", 19302, [], tls), listener("jwt", 19303, [jwt_filter(jwks)]),
        listener("full", 19304, [jwt_filter(jwks), rbac_filter()]),
    ]
    print(json.dumps({"static_resources": {"listeners": listeners, "clusters": [cluster]}}))


if __name__ == "__main__":
    main()
