"""Handshakes with HOST at ADDRESS PORT under the strictest checks that Python's ssl has; trusts ROOTS alone."""

import socket
import ssl
import sys

address, port, host, roots = sys.argv[1:5]
context = ssl.create_default_context(cafile=roots)
context.verify_flags |= ssl.VERIFY_X509_STRICT
with socket.create_connection((address, int(port)), timeout=30) as plain:
    with context.wrap_socket(plain, server_hostname=host) as tls:
        print(tls.version())
