"""The backend of the SDK checks: it tells clients who they are, and the checks what the gateway told it.

POST /                    an event; a message is answered with the event's `requestContext`
GET  /disconnect?id=ID    waits for the `$disconnect` of a connection; its `requestContext`
GET  /connecting          waits for a `$connect` with the query `hold=1`, which is not answered; its connection id
POST /release             answers it
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LIMIT_SECONDS = 30


class State:
    """What the gateway told."""

    changed = threading.Condition()
    disconnects = {}
    connecting = []
    released = False


def wait_for(predicate):
    with State.changed:
        if not State.changed.wait_for(predicate, LIMIT_SECONDS):
            raise TimeoutError
        return predicate()


def change(action):
    with State.changed:
        action()
        State.changed.notify_all()


def handle(event):
    context = event["requestContext"]
    if context["eventType"] == "MESSAGE":
        return {"statusCode": 200, "body": json.dumps(context)}
    if context["eventType"] == "DISCONNECT":
        change(lambda: State.disconnects.update({context["connectionId"]: context}))
    elif (event.get("queryStringParameters") or {}).get("hold"):
        change(lambda: State.connecting.append(context["connectionId"]))
        wait_for(lambda: State.released)
    return {"statusCode": 200}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/release":
            change(lambda: setattr(State, "released", True))
            return self.answer(200, {})
        self.answer(200, handle(json.loads(body)))

    def do_GET(self):
        url = urlsplit(self.path)
        try:
            if url.path == "/connecting":
                return self.answer(200, wait_for(lambda: State.connecting)[0])
            (connection_id,) = parse_qs(url.query)["id"]
            self.answer(200, wait_for(lambda: State.disconnects.get(connection_id)))
        except TimeoutError:
            self.answer(504, {"message": "it did not happen"})

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code="-", size="-"):
        """One line for each event would be too many."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


server = Server(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
