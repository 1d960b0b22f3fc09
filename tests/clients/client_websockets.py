"""websockets: a dialogue at URL; prints everything that came back."""

import os
import sys

from websockets.sync.client import connect

fields = {"Authorization": "Bearer " + os.environ["ACME_API_KEY"]}
with connect(sys.argv[1], additional_headers=fields, open_timeout=60) as socket:
    print(dict(socket.response.headers))
    for word in ("first", "second"):
        socket.send(word)
        heard = socket.recv(timeout=60)
        print("heard", heard)
        assert heard == word, heard
