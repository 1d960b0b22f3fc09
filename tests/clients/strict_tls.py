"""Handshakes with HOST at ADDRESS PORT under the strictest checks that Python's ssl has; trusts ROOTS alone.

With AGENT and TOKEN, ADDRESS PORT is a proxy and the handshake goes through a tunnel.
"""

import base64
import socket
import ssl
import sys

address, port, host, roots = sys.argv[1:5]
context = ssl.create_default_context(cafile=roots)
context.verify_flags |= ssl.VERIFY_X509_STRICT
with socket.create_connection((address, int(port)), timeout=30) as plain:
    if len(sys.argv) > 5:
        basic = base64.b64encode(":".join(sys.argv[5:7]).encode()).decode()
        request = f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nProxy-Authorization: Basic {basic}\r\n\r\n"
        plain.sendall(request.encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = plain.recv(1)
            assert byte, head
            head += byte
        assert head.split()[1] == b"200", head
    with context.wrap_socket(plain, server_hostname=host) as tls:
        print(tls.version())
