"""A gRPC service over TLS: grpc_server.py CERT KEY; the credential that it wants stands in WANTED. Prints its port.

It says the credential back in a message, in metadata, and in the words of a failure.
"""

import os
import sys
from concurrent import futures

import grpc

certificate, key = (open(path, "rb").read() for path in sys.argv[1:3])
wanted = os.environ["WANTED"]


def check(context):
    given = dict(context.invocation_metadata()).get("authorization")
    if given != f"Bearer {wanted}":
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "another credential")
    context.send_initial_metadata((("x-you-sent", given),))
    context.set_trailing_metadata((("x-checksum", "42"), ("x-you-sent", given), ("x-binary-bin", given.encode())))


def echo(request, context):
    check(context)
    return request + b" " + wanted.encode() if request == b"secret" else request


def chat(requests, context):
    check(context)
    for request in requests:
        yield b"heard " + request


def count(request, context):
    check(context)
    for number in range(int(request)):
        yield b"%06d" % number * 1000


def fail(request, context):
    check(context)
    context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"bad key {wanted}")


class Talk(grpc.GenericRpcHandler):
    def service(self, details):
        return {
            "/talk.Talk/Echo": grpc.unary_unary_rpc_method_handler(echo),
            "/talk.Talk/Chat": grpc.stream_stream_rpc_method_handler(chat),
            "/talk.Talk/Count": grpc.unary_stream_rpc_method_handler(count),
            "/talk.Talk/Fail": grpc.unary_unary_rpc_method_handler(fail),
        }.get(details.method)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
server.add_generic_rpc_handlers((Talk(),))
credentials = grpc.ssl_server_credentials([(key, certificate)])
print(server.add_secure_port("127.0.0.1:0", credentials), flush=True)
server.start()
# Until whoever started us is gone.
sys.stdin.read()
