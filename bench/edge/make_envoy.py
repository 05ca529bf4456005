"""Writes Envoy's configuration as JSON. `python make_envoy.py DIR one` prints that of the worker that does everything: plain,
TLS 1.3 with HTTP/2, jwt_authn with its cache, the same with thirty rbac policies, gRPC, WebSocket, mTLS to the upstream, asked by
another proxy, and asking Countersign. `python make_envoy.py DIR two` prints plain alone, for two workers.

Python and not a template, because Envoy wants the same connection manager again and again.
"""
import json
import sys
from pathlib import Path

RULES = 30
TYPE = "type.googleapis.com/envoy.extensions"
FILTERS = f"{TYPE}.filters.http"


def jwt_filter(jwks: str) -> dict:
    provider = {
        "issuer": "https://issuer.bench.example", "audiences": ["bench"], "local_jwks": {"inline_string": jwks},
        "payload_in_metadata": "token", "jwt_cache_config": {"jwt_cache_size": 1000},
    }
    rule = {"match": {"prefix": "/"}, "requires": {"provider_name": "bench"}}
    config = {"@type": f"{FILTERS}.jwt_authn.v3.JwtAuthentication", "providers": {"bench": provider}, "rules": [rule]}
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
    config = {"@type": f"{FILTERS}.rbac.v3.RBAC", "rules": {"action": "ALLOW", "policies": policies}}
    return {"name": "envoy.filters.http.rbac", "typed_config": config}


def asks_countersign() -> dict:
    config = {
        "@type": f"{FILTERS}.ext_authz.v3.ExtAuthz", "transport_api_version": "V3", "encode_raw_headers": True,
        "grpc_service": {"envoy_grpc": {"cluster_name": "countersign"}, "timeout": "2s"},
    }
    return {"name": "envoy.filters.http.ext_authz", "typed_config": config}


def listener(name: str, port: int, filters: list | None = None, tls: dict | None = None, to: str = "origin", **manager) -> dict:
    """`to` is the cluster; without one, whatever passes the filters is answered 200 here. `manager` adds to the connection manager."""
    router = {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{FILTERS}.router.v3.Router"}}
    answer = {"route": {"cluster": to, "timeout": "60s"}} if to else {"direct_response": {"status": 200}}
    manager = {
        "@type": f"{TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name, "codec_type": "AUTO" if tls else "HTTP1", "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **answer}]}]},
        "http_filters": [*(filters or []), router], **manager,
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    if tls:
        chain["transport_socket"] = {"name": "tls", "typed_config": tls}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [chain]}


def cluster(name: str, port: int, http2: bool = False, tls: dict | None = None) -> dict:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    limits = [{"priority": "DEFAULT", "max_connections": 8000, "max_pending_requests": 8000, "max_requests": 8000}]
    made = {
        "name": name, "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": {"thresholds": limits},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if http2:
        options = f"{TYPE}.upstreams.http.v3.HttpProtocolOptions".removeprefix("type.googleapis.com/")
        protocol = {"@type": f"type.googleapis.com/{options}", "explicit_http_config": {"http2_protocol_options": {}}}
        made["typed_extension_protocol_options"] = {options: protocol}
    if tls:
        made["transport_socket"] = {"name": "tls", "typed_config": tls}
    return made


def tls_contexts(folder: Path) -> tuple[dict, dict]:
    """Towards the client, and towards the upstream."""
    leaf = {"certificate_chain": {"filename": str(folder / "edge.pem")}, "private_key": {"filename": str(folder / "edge.key")}}
    only_13 = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"}
    common = {"tls_params": only_13, "tls_certificates": [leaf]}
    localhost = [{"san_type": "DNS", "matcher": {"exact": "localhost"}}]
    trusted = {"trusted_ca": {"filename": str(folder / "ca.pem")}, "match_typed_subject_alt_names": localhost}
    name = f"{TYPE}.transport_sockets.tls.v3"
    down = {"@type": f"{name}.DownstreamTlsContext", "common_tls_context": {**common, "alpn_protocols": ["h2", "http/1.1"]}}
    up = {"@type": f"{name}.UpstreamTlsContext", "common_tls_context": {**common, "validation_context": trusted}, "sni": "localhost"}
    return down, up


def main() -> None:
    folder = Path(sys.argv[1])
    jwt = jwt_filter((folder / "jwks.json").read_text())
    down, up = tls_contexts(folder)
    listeners = [
        listener("plain", 19301), listener("tls", 19302, tls=down), listener("jwt", 19303, [jwt]),
        listener("full", 19304, [jwt, rbac_filter()]),
        listener("grpc", 19305, to="origin_grpc", codec_type="HTTP2"),
        listener("websocket", 19306, to="origin_echo", upgrade_configs=[{"upgrade_type": "websocket"}]),
        listener("mtls", 19307, to="origin_mtls"),
        listener("asked", 19308, [jwt, rbac_filter()], to=""),
        listener("asks", 19309, [asks_countersign()], use_remote_address=True, normalize_path=True),
    ]
    clusters = [
        cluster("origin", 19080), cluster("origin_mtls", 19081, tls=up), cluster("origin_grpc", 19082, http2=True),
        cluster("origin_echo", 19083), cluster("countersign", 19422, http2=True),
    ]
    if sys.argv[2] == "two":
        listeners, clusters = [listener("plain", 19311)], [cluster("origin", 19080)]
    print(json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}}))


if __name__ == "__main__":
    main()
