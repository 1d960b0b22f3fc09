#!/usr/bin/env python3
"""How long after its start the daemon answers: benches/cold_start.py [BINARY [TIMES]].

Two moments are taken, each from just before the process is started: the first answer of the proxy (a 407), and the end of the
first TLS handshake with a host that is intercepted, which needs a certificate. Use a release build.
"""

import base64
import os
import pathlib
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

HOST = "api.acme.example"
CONFIG = """\
listen: {{proxy: 127.0.0.1:{0}, base_url: 127.0.0.1:0, admin: 127.0.0.1:0}}
providers:
  acme: {{hosts: [{1}], inject: {{header: Authorization, value: "Bearer {{secret}}"}}, env: ACME_API_KEY}}
default: deny
"""


def main():
    binary = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else "target/release/keyferry")
    times = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    home = pathlib.Path(tempfile.mkdtemp(prefix="keyferry-cold-"))
    try:
        os.chmod(home, 0o700)
        port = free_port()
        (home / "keyferry.yaml").write_text(CONFIG.format(port, HOST))
        os.chmod(home / "keyferry.yaml", 0o600)
        keyferry = [binary, "--home", str(home), "--quiet"]
        subprocess.run([*keyferry, "secret", "set", "acme:work"], input=os.urandom(24).hex(), text=True, check=True)
        created = subprocess.run([*keyferry, "agent", "create", "coder", "--json"], capture_output=True, check=True)
        token = created.stdout.decode().split('"token": "')[1].split('"')[0]
        answers, handshakes = zip(*(once(keyferry, port, token, home) for _ in range(times)))
        show("first answer", answers)
        show("first TLS handshake", handshakes)
    finally:
        shutil.rmtree(home)


def once(keyferry, port, token, home):
    started = time.perf_counter()
    daemon = subprocess.Popen([*keyferry, "serve"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        stream = connected(port, daemon)
        stream.sendall(f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode())
        head = read_head(stream)
        answered = time.perf_counter() - started
        assert head.startswith(b"HTTP/1.1 407"), head
        basic = base64.b64encode(f"coder:{token}".encode()).decode()
        fields = f"Host: {HOST}:443\r\nProxy-Authorization: Basic {basic}\r\n"
        stream.sendall(f"CONNECT {HOST}:443 HTTP/1.1\r\n{fields}\r\n".encode())
        head = read_head(stream)
        assert head.startswith(b"HTTP/1.1 200"), head
        context = ssl.create_default_context(cafile=home / "ca" / "ca.pem")
        context.wrap_socket(stream, server_hostname=HOST).close()
        return answered, time.perf_counter() - started
    finally:
        daemon.terminate()
        daemon.wait()


def connected(port, daemon):
    while daemon.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            time.sleep(0.0002)
    raise SystemExit("the daemon ended")


def read_head(stream):
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = stream.recv(4096)
        assert piece, head
        head += piece
    return head


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def show(name, seconds):
    ordered = sorted(second * 1000 for second in seconds)
    last = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
    print(f"{name}: median {statistics.median(ordered):.1f} ms, 95 % under {last:.1f} ms, least {ordered[0]:.1f} ms")


if __name__ == "__main__":
    main()
