"""grpcio: unary calls, a stream, a dialogue and a failure at HOST:PORT; prints everything that came back."""

import os
import queue
import sys

import grpc

metadata = (("authorization", f"Bearer {os.environ['ACME_API_KEY']}"),)
channel = grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials())

call = channel.unary_unary("/talk.Talk/Echo")
for request in (b"hello", b"", b"x" * 1_000_000, b"secret"):
    answer, details = call.with_call(request, metadata=metadata, timeout=60)
    if request != b"secret":
        assert answer == request, answer[:100]
    print("unary", answer[:200], details.initial_metadata(), details.trailing_metadata())
    assert dict(details.trailing_metadata())["x-checksum"] == "42"

numbers = list(channel.unary_stream("/talk.Talk/Count")(b"500", metadata=metadata, timeout=60))
assert numbers == [b"%06d" % number * 1000 for number in range(500)]
print("stream", len(numbers))

# Each word is sent when the one before was heard; one ends as the credential may begin.
words = queue.SimpleQueue()
talk = channel.stream_stream("/talk.Talk/Chat")(iter(words.get, None), metadata=metadata, timeout=60)
for number in range(50):
    word = b"%d %s" % (number, os.environ["ACME_API_KEY"][: number % 8].encode())
    words.put(word)
    assert next(talk) == b"heard " + word
words.put(None)
assert list(talk) == []
print("dialogue", talk.code())

try:
    channel.unary_unary("/talk.Talk/Fail")(b"", metadata=metadata, timeout=60)
except grpc.RpcError as error:
    print("failure", error.code(), error.details(), error.trailing_metadata())
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
