"""A gRPC server and a gRPC client that asks one through the edge (grpcio, the C core).

`grpc_peer.py serve [CERT KEY]` prints {"port": N} and serves until its standard input ends.
`grpc_peer.py check ADDRESS AUTHORITY TOKEN [CA]` runs every case and prints {"case", "good", "seen"} for each; it ends with 1 if one
was not good. Without a token the calls are made by nobody.

Messages are plain bytes: what a proxy must not touch needs no schema.
"""
import gzip
import json
import os
import queue
import sys
import threading
import time
from concurrent import futures

import grpc

SERVICE = "orders.Orders"
PATIENCE = 20


def identity(data: bytes) -> bytes:
    return data


class Orders(grpc.GenericRpcHandler):
    def __init__(self):
        self.cancelled = threading.Event()

    def service(self, details):
        name = details.method.removeprefix(f"/{SERVICE}/")
        kinds = {
            "Unary": grpc.unary_unary_rpc_method_handler, "Down": grpc.unary_stream_rpc_method_handler,
            "Up": grpc.stream_unary_rpc_method_handler, "Both": grpc.stream_stream_rpc_method_handler,
            "Fail": grpc.unary_unary_rpc_method_handler, "Sleep": grpc.unary_unary_rpc_method_handler,
            "Hold": grpc.unary_stream_rpc_method_handler, "WasCancelled": grpc.unary_unary_rpc_method_handler,
            "Metadata": grpc.unary_unary_rpc_method_handler, "Silent": grpc.unary_stream_rpc_method_handler,
        }
        return kinds[name](getattr(self, name.lower()), identity, identity) if name in kinds else None

    def unary(self, request, context):
        return request

    def down(self, request, context):
        for n in range(int(request)):
            yield b"%d" % n

    def up(self, requests, context):
        return b",".join(requests)

    def both(self, requests, context):
        for request in requests:
            yield b"echo " + request

    def fail(self, request, context):
        context.set_trailing_metadata((("x-why", "as asked"), ("x-why-bin", bytes(range(256)))))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nein, 100 % sicher: müde")

    def sleep(self, request, context):
        time.sleep(min(float(request), PATIENCE))
        return b"awake"

    def hold(self, request, context):
        self.cancelled.clear()
        context.add_callback(self.cancelled.set)
        yield b"begun"
        while context.is_active():
            time.sleep(0.01)

    def silent(self, request, context):
        """Says nothing, not even its head, until it was waited for."""
        time.sleep(min(float(request), PATIENCE))
        yield b"at last"

    def wascancelled(self, request, context):
        return b"yes" if self.cancelled.wait(PATIENCE) else b"no"

    def metadata(self, request, context):
        seen = [[name, value.hex() if isinstance(value, bytes) else value] for name, value in context.invocation_metadata()]
        context.send_initial_metadata((("x-first", "one"), ("x-first", "two"), ("x-raw-bin", bytes(range(256)))))
        context.set_trailing_metadata((("x-last-bin", b"\x00\xff"),))
        return json.dumps(seen).encode()


def serve(certificate=None, key=None):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=80), options=[("grpc.max_receive_message_length", 64 << 20)])
    server.add_generic_rpc_handlers((Orders(),))
    if certificate:
        with open(key, "rb") as k, open(certificate, "rb") as c:
            port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(k.read(), c.read())]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(json.dumps({"port": port}), flush=True)
    sys.stdin.read()
    os._exit(0)


class Client:
    def __init__(self, channel, token):
        self.channel = channel
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()

    def call(self, kind, name):
        method = getattr(self.channel, kind)(f"/{SERVICE}/{name}", request_serializer=identity, response_deserializer=identity)
        return lambda request, **more: method(request, **{"metadata": self.metadata, "timeout": PATIENCE, **more})

    # Each case returns (good, what was seen).
    def unary(self):
        got = self.call("unary_unary", "Unary")(b"hello")
        return got == b"hello", repr(got)

    def empty_message(self):
        got = self.call("unary_unary", "Unary")(b"")
        return got == b"", repr(got)

    def four_mebibytes(self):
        data = os.urandom(4 << 20)
        got = self.call("unary_unary", "Unary")(data)
        return got == data, len(got)

    def server_stream(self):
        got = list(self.call("unary_stream", "Down")(b"100"))
        return got == [b"%d" % n for n in range(100)], len(got)

    def client_stream(self):
        got = self.call("stream_unary", "Up")(iter([b"a", b"b", b"c"]))
        return got == b"a,b,c", repr(got)

    def both_ways_without_buffering(self):
        """Each message is sent only when the answer to the one before it has come."""
        outgoing = queue.Queue()
        answers = self.call("stream_stream", "Both")(iter(outgoing.get, None))
        seen = []
        for n in range(20):
            outgoing.put(b"%d" % n)
            seen.append(next(answers))
        outgoing.put(None)
        rest = list(answers)
        return seen == [b"echo %d" % n for n in range(20)] and rest == [], len(seen)

    def trailers_and_status(self):
        try:
            self.call("unary_unary", "Fail")(b"")
        except grpc.RpcError as error:
            trailers = dict(error.trailing_metadata())
            good = (error.code() is grpc.StatusCode.FAILED_PRECONDITION and error.details() == "nein, 100 % sicher: müde"
                    and trailers.get("x-why") == "as asked" and trailers.get("x-why-bin") == bytes(range(256)))
            return good, f"{error.code()} {error.details()} {sorted(trailers)}"
        return False, "no error"

    def binary_metadata(self):
        raw = bytes(range(255, -1, -1))
        call = self.channel.unary_unary(f"/{SERVICE}/Metadata", request_serializer=identity, response_deserializer=identity)
        got, ended = call.with_call(b"", metadata=self.metadata + (("x-mine-bin", raw), ("x-mine", "a"), ("x-mine", "b")), timeout=PATIENCE)
        seen = [tuple(pair) for pair in json.loads(got)]
        first, last = list(ended.initial_metadata()), dict(ended.trailing_metadata())
        good = (("x-mine-bin", raw.hex()) in seen and ("x-mine", "a") in seen and ("x-mine", "b") in seen
                and ("x-first", "one") in first and ("x-first", "two") in first and ("x-raw-bin", bytes(range(256))) in first
                and last.get("x-last-bin") == b"\x00\xff" and "authorization" not in dict(seen))
        return good, f"{sorted(dict(seen))} {sorted(dict(first))} {sorted(last)}"

    def deadline(self):
        try:
            self.call("unary_unary", "Sleep")(b"15", timeout=0.3)
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.DEADLINE_EXCEEDED, str(error.code())
        return False, "no error"

    def cancel(self):
        answers = self.call("unary_stream", "Hold")(b"")
        first = next(answers)
        answers.cancel()
        got = self.call("unary_unary", "WasCancelled")(b"")
        return first == b"begun" and got == b"yes", repr(got)

    def silence_is_no_failure(self):
        got = list(self.call("unary_stream", "Silent")(b"2.5"))
        return got == [b"at last"], repr(got)

    def gzipped(self):
        data = b"abc" * 100_000
        got = self.call("unary_unary", "Unary")(data, compression=grpc.Compression.Gzip)
        return got == data and len(gzip.compress(data)) < len(data), len(got)

    def fifty_at_once(self):
        with futures.ThreadPoolExecutor(max_workers=50) as pool:
            wanted = [b"%d" % n * 1000 for n in range(50)]
            got = list(pool.map(self.call("unary_unary", "Unary"), wanted))
        return got == wanted, len(got)

    def fifty_streams_at_once(self):
        call = self.call("unary_stream", "Down")
        with futures.ThreadPoolExecutor(max_workers=50) as pool:
            got = list(pool.map(lambda _: len(list(call(b"200"))), range(50)))
        return got == [200] * 50, sum(got)

    def unknown_method(self):
        try:
            self.call("unary_unary", "Nothing")(b"")
        except grpc.RpcError as error:
            return error.code() is grpc.StatusCode.UNIMPLEMENTED, str(error.code())
        return False, "no error"


CASES = [name for name, value in vars(Client).items() if callable(value) and not name.startswith("_") and name != "call"]


def check(address, authority, token, ca=None):
    options = [("grpc.default_authority", authority), ("grpc.max_receive_message_length", 64 << 20), ("grpc.enable_retries", 0)]
    if ca:
        with open(ca, "rb") as file:
            options.append(("grpc.ssl_target_name_override", authority))
            channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(file.read()), options=options)
    else:
        channel = grpc.insecure_channel(address, options=options)
    client = Client(channel, token)
    all_good = True
    for name in CASES:
        try:
            good, seen = getattr(client, name)()
        except grpc.RpcError as error:
            metadata = dict(error.initial_metadata() or ()) | dict(error.trailing_metadata() or ())
            good, seen = False, f"{error.code().name}: {error.details()} {sorted(metadata)}"
        all_good &= good
        print(json.dumps({"case": name, "good": good, "seen": seen}), flush=True)
    sys.exit(0 if all_good else 1)


if __name__ == "__main__":
    {"serve": serve, "check": check}[sys.argv[1]](*sys.argv[2:])
