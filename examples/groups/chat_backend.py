#!/usr/bin/env python3
"""A chat backend for tidegate that remembers nothing: rooms are groups, and the gateway knows who is in them.

Every event is answered with what is to happen (`tidegate` in the answer), so there is no table of connection ids, no
call back, no queue and no lock; any number of these processes may stand behind one gateway.
Run it with: python3 chat_backend.py [--port 9000]
"""

import argparse
import json
import re
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BODY_MAX_BYTES = 1024 * 1024
ROOM = re.compile(r"[A-Za-z0-9_-]{1,40}")
HINT = 'Try {"action":"join","room":"lobby","name":"Ada"}, then {"action":"sendMessage","room":"lobby","name":"Ada","text":"hello"}.'


def handle(event):
    """What is to happen after one Lambda proxy event."""
    context = event["requestContext"]
    if context["eventType"] != "MESSAGE":
        return {}
    try:
        message = json.loads(event.get("body") or "")
        room, name, text = (message.get(key) for key in ("room", "name", "text"))
    except (ValueError, AttributeError):
        return to_self({"type": "error", "message": "the message is no JSON object"})
    route = context["routeKey"]
    if route not in ("join", "leave", "sendMessage"):
        return to_self({"type": "hint", "message": HINT})
    if not isinstance(room, str) or not ROOM.fullmatch(room) or not isinstance(name, str) or not 1 <= len(name) <= 40:
        return to_self({"type": "error", "message": "`room` and `name` must have 1 to 40 characters"})
    person = {"room": room, "connectionId": context["connectionId"], "name": name}
    if route == "join":
        welcome = {"type": "welcome", **person, "callbackUrl": context["callbackUrl"]}
        return {
            "join": [room],
            "user": name,
            "send": [to_room(room, {"type": "joined", **person}, but=["self"]), *to_self(welcome)["send"]],
        }
    if route == "leave":
        return {"leave": [room], "send": [to_room(room, {"type": "left", **person})]}
    if not isinstance(text, str) or not 1 <= len(text) <= 2000:
        return to_self({"type": "error", "message": "`text` must have 1 to 2000 characters"})
    return {"send": [to_room(room, {"type": "message", **person, "text": text, "at": context["requestTimeEpoch"]})]}


def to_room(room, frame, but=()):
    return {"group": room, "except": list(but), "data": json.dumps(frame)}


def to_self(frame):
    return {"send": [{"connection": "self", "data": json.dumps(frame)}]}


class Handler(BaseHTTPRequestHandler):
    """`POST /`: one event in, one answer out, on HTTP connections that are kept open."""

    protocol_version = "HTTP/1.1"
    timeout = 300  # an HTTP connection without a request for this long is closed
    wbufsize = -1  # one write for head and body
    disable_nagle_algorithm = True

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > BODY_MAX_BYTES:
            self.close_connection = True  # the body stays unread
            return self._answer(413, {"message": "the event needs a Content-Length up to 1 MiB"})
        try:
            answer = {"statusCode": 200, "tidegate": handle(json.loads(self.rfile.read(int(length))))}
        except (ValueError, KeyError, TypeError) as error:
            return self._answer(400, {"message": f"not a Lambda proxy event: {error!r}"})
        self._answer(200, answer)

    def _answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code="-", size="-"):
        """One line for each event would be too many."""


def main():
    parser = argparse.ArgumentParser(description="A chat backend for tidegate that remembers nothing.")
    parser.add_argument("--port", type=int, default=9000, help="0 takes any free one (default 9000)")
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"chat backend on http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
