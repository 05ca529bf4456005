"""Holds idle keep-alive connections, each after one answered request. `python idle.py PORT COUNT PATH [tls]` prints `held` and
keeps them until its standard input ends. It waits a little before: a connection that just answered is not idle yet, and
some proxies give its buffers back only then. Loopback only.
"""
import http.client
import resource
import ssl
import sys
import time

SETTLE_S = 3

port, count, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
trust_anything = ssl.create_default_context()
trust_anything.check_hostname, trust_anything.verify_mode = False, ssl.CERT_NONE
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
held = []
for _ in range(count):
    if "tls" in sys.argv[4:]:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=10, context=trust_anything)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        sys.exit(f"status {answer.status} instead of 200")
    held.append(connection)
time.sleep(SETTLE_S)
print("held", flush=True)
sys.stdin.read()
