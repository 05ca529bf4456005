"""Holds idle keep-alive connections, each after one answered request. `python idle.py PORT COUNT PATH [tls]` prints `held` and
keeps them until its standard input ends. Loopback only.
"""
import http.client
import ssl
import sys

port, count, path = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
trust_anything = ssl.create_default_context()
trust_anything.check_hostname, trust_anything.verify_mode = False, ssl.CERT_NONE
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
print("held", flush=True)
sys.stdin.read()
