"""A collector for OTLP over HTTP, made of OpenTelemetry's own message classes and names (opentelemetry-proto,
opentelemetry-semantic-conventions).

`otlp_peer.py [CERT KEY]` prints {"port": N}, then one line for each export, and serves until its standard input ends. A message that the
classes cannot read, or that holds a field they do not know, is told as {"bad": why}.
"""
import importlib
import json
import pkgutil
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.semconv import attributes as conventions


def stable_names():
    """Every attribute that the stable conventions name."""
    names = set()
    for module in pkgutil.iter_modules(conventions.__path__):
        content = vars(importlib.import_module(f"{conventions.__name__}.{module.name}"))
        names.update(value for value in content.values() if isinstance(value, str) and "." in value)
    return names


STABLE = stable_names()


def refuse_unknown(message):
    unknown = [field.field_number for field in UnknownFieldSet(message)]
    if unknown:
        raise ValueError(f"unknown fields {unknown} in {message.DESCRIPTOR.name}")
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                refuse_unknown(part)


def attributes(pairs):
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def span(one):
    found = attributes(one.attributes)
    return {
        "trace_id": one.trace_id.hex(), "span_id": one.span_id.hex(), "parent": one.parent_span_id.hex(),
        "name": one.name, "kind": one.kind, "flags": one.flags, "status": one.status.code,
        "start": one.start_time_unix_nano, "end": one.end_time_unix_nano, "attributes": found,
        "links": [link.trace_id.hex() for link in one.links],
        "strange": sorted(name for name in found if name not in STABLE and not name.startswith("countersign.")),
    }


def metric(one):
    kind = one.WhichOneof("data")
    data = getattr(one, kind)
    points = []
    for point in data.data_points:
        told = {"attributes": attributes(point.attributes), "start": point.start_time_unix_nano, "time": point.time_unix_nano}
        if kind == "histogram":
            told |= {"count": point.count, "sum": point.sum, "buckets": list(point.bucket_counts), "bounds": list(point.explicit_bounds)}
        else:
            told["value"] = getattr(point, point.WhichOneof("value"))
        points.append(told)
    return {
        "name": one.name, "unit": one.unit, "help": one.description, "kind": kind, "points": points,
        "temporality": getattr(data, "aggregation_temporality", None), "monotonic": getattr(data, "is_monotonic", None),
    }


def read(path, body):
    if path == "/v1/traces":
        request = trace_service_pb2.ExportTraceServiceRequest.FromString(body)
        refuse_unknown(request)
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                spans = [span(one) for one in scope.spans]
                yield {"resource": attributes(resource.resource.attributes), "scope": scope.scope.name, "spans": spans}
    elif path == "/v1/metrics":
        request = metrics_service_pb2.ExportMetricsServiceRequest.FromString(body)
        refuse_unknown(request)
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                metrics = [metric(one) for one in scope.metrics]
                yield {"resource": attributes(resource.resource.attributes), "scope": scope.scope.name, "metrics": metrics}
    else:
        raise ValueError(f"nobody listens at {path}")


LOCK = threading.Lock()


def say(told):
    with LOCK:
        print(json.dumps(told), flush=True)


class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        fields = {name.lower(): value for name, value in self.headers.items()}
        try:
            for told in read(self.path, body):
                say(told | {"fields": fields})
            self.send_response(200)
        except Exception as error:
            say({"bad": f"{self.path}: {error}"})
            self.send_response(400)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    if len(sys.argv) > 2:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1], sys.argv[2])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    say({"port": server.server_port})
    sys.stdin.read()


if __name__ == "__main__":
    main()
