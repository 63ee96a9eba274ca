#!/usr/bin/env python3
"""A chat backend for tidegate with Python's standard library alone.

The gateway posts each event of a client here (AWS_PROXY); what the chat has to say goes to the `callbackUrl` of each
connection. Run it with: python3 chat_backend.py [--port 9000]
"""

import argparse
import http.client
import json
import queue
import signal
import threading
import unicodedata
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

NAME_MAX_CHARS = 40
TEXT_MAX_CHARS = 2000
ROOMS_MAX = 100
MEMBERS_MAX = 100
CONNECTIONS_MAX = 500  # each has a thread
OUTBOX_MAX = 256  # frames that wait for one connection
BODY_MAX_BYTES = 1024 * 1024
POST_TIMEOUT_SECONDS = 15
ATTEMPTS_MAX = 4

HINT = 'Try {"action":"join","room":"lobby","name":"Ada"} and then {"action":"sendMessage","text":"hello"}.'


class Refused(Exception):
    """What is wrong with a request, as a sentence for the client."""


class Connection:
    """A client. One thread posts to it, so that it gets its frames in order."""

    def __init__(self, chat, connection_id, callback_url):
        self.chat = chat
        self.id = connection_id
        self.callback_url = callback_url
        self.room = None
        self.name = None
        self.outbox = queue.Queue(OUTBOX_MAX)
        self.ended = threading.Event()
        threading.Thread(target=self._post_all, daemon=True).start()

    def person(self):
        return {"connectionId": self.id, "name": self.name}

    def _post_all(self):
        url = urlsplit(self.callback_url)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        gateway = kinds[url.scheme](url.netloc, timeout=POST_TIMEOUT_SECONDS)
        while not self.ended.is_set():
            try:
                frame = self.outbox.get(timeout=1)
            except queue.Empty:
                # The gateway closes idle HTTP connections too: closed here first, no post can meet a dying one.
                gateway.close()
                continue
            if self._post(gateway, url.path, frame) == 410:
                self.chat.close(self, None, "connection is gone")
        gateway.close()

    def _post(self, gateway, path, frame):
        """Posts one frame; again only if the gateway says that it wrote nothing (429, 503)."""
        for attempt in range(ATTEMPTS_MAX):
            try:
                gateway.request("POST", path, frame, {"content-type": "application/json"})
                response = gateway.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                # It may have been written: a repetition could show it twice. The next post connects again.
                gateway.close()
                print(f"no answer to a post to {self.id}: {error}", flush=True)
                return None
            if response.status not in (429, 503) or self.ended.wait(0.1 * 2**attempt):
                return response.status
        return response.status


class Chat:
    """Rooms and their members. One lock: the order of its changes is the order of the frames in every outbox."""

    def __init__(self):
        self.lock = threading.RLock()
        self.connections = {}
        self.rooms = {}  # each room's connections in the order in which they joined

    def handle(self, event):
        """Carries out one Lambda proxy event; returns the answer."""
        context = event["requestContext"]
        with self.lock:
            if context["eventType"] == "DISCONNECT":
                connection = self.connections.get(context["connectionId"])
                if connection:
                    self.close(connection, context.get("disconnectStatusCode"), context.get("disconnectReason", ""))
                return {"statusCode": 200}
            connection = self._open(context["connectionId"], context["callbackUrl"])
            if connection is None:
                return {"statusCode": 503}
            if context["eventType"] == "MESSAGE":
                try:
                    self._message(connection, context, event.get("body") or "")
                except Refused as refused:
                    self._send([connection], {"type": "error", "message": str(refused)})
        return {"statusCode": 200}

    def close(self, connection, code, reason):
        with self.lock:
            connection.ended.set()
            if self.connections.get(connection.id) is connection:
                del self.connections[connection.id]
            self._leave(connection, code, reason)

    def _open(self, connection_id, callback_url):
        connection = self.connections.get(connection_id)
        if connection is None and len(self.connections) < CONNECTIONS_MAX:
            connection = self.connections[connection_id] = Connection(self, connection_id, callback_url)
        return connection

    def _message(self, connection, context, body):
        route_key = context["routeKey"]
        if route_key == "join":
            message = read_object(body)
            self._join(connection, label(message, "room"), label(message, "name"))
        elif route_key == "sendMessage":
            text = read_object(body).get("text")
            if not isinstance(text, str) or not text.strip() or len(text) > TEXT_MAX_CHARS:
                raise Refused(f"`text` must have 1 to {TEXT_MAX_CHARS} characters")
            if connection.room is None:
                raise Refused("join a room first")
            message = {"type": "message", "room": connection.room, "from": connection.id, "name": connection.name}
            message |= {"text": text, "at": context["requestTimeEpoch"]}
            self._send(self.rooms[connection.room], message)
        else:
            self._send([connection], {"type": "hint", "message": HINT})

    def _join(self, connection, room, name):
        if room != connection.room:
            if len(self.rooms.get(room, [])) >= MEMBERS_MAX:
                raise Refused("this room is full")
            if room not in self.rooms and len(self.rooms) >= ROOMS_MAX:
                raise Refused("there are too many rooms already: join one of them")
        self._leave(connection, None, "joins again" if room == connection.room else "went to another room")
        others = list(self.rooms.get(room, []))
        connection.room, connection.name = room, name
        self.rooms.setdefault(room, []).append(connection)
        members = [member.person() for member in self.rooms[room]]
        self._send(others, {"type": "joined", "room": room, **connection.person()})
        welcome = {"type": "welcome", **connection.person(), "callbackUrl": connection.callback_url}
        self._send([connection], {**welcome, "room": room, "members": members})
        self._send(others, {"type": "members", "room": room, "members": members})

    def _leave(self, connection, code, reason):
        room = connection.room
        if room is None:
            return
        connection.room = None
        members = self.rooms[room]
        members.remove(connection)
        if not members:
            del self.rooms[room]
        left = {"type": "left", "room": room, **connection.person(), "reason": reason}
        if code is not None:
            left["code"] = code
        self._send(members, left)
        self._send(members, {"type": "members", "room": room, "members": [member.person() for member in members]})

    def _send(self, connections, frame):
        frame = json.dumps(frame).encode()
        slow = []
        for connection in connections:
            try:
                connection.outbox.put_nowait(frame)
            except queue.Full:
                slow.append(connection)
        for connection in slow:
            self._leave(connection, None, "reads too slowly")


def read_object(text):
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Refused("the message is no JSON object")
    return value


def label(message, field):
    text = message.get(field)
    text = text.strip() if isinstance(text, str) else ""
    if not 1 <= len(text) <= NAME_MAX_CHARS or any(unicodedata.category(char) == "Cc" for char in text):
        raise Refused(f"`{field}` must have 1 to {NAME_MAX_CHARS} characters and no control characters")
    return text


class Handler(BaseHTTPRequestHandler):
    """`POST /`: one event in, one answer out, on HTTP connections that are kept open."""

    protocol_version = "HTTP/1.1"
    timeout = 300  # an HTTP connection without a request for this long is closed
    # One write for head and body; two would wait for each other's acknowledgement on a slow day.
    wbufsize = -1
    disable_nagle_algorithm = True
    chat = Chat()

    def do_POST(self):
        try:
            length = int(self.headers.get("content-length", ""))
        except ValueError:
            length = -1
        if not 0 <= length <= BODY_MAX_BYTES:
            # The body stays unread, so this HTTP connection has no next request.
            self.close_connection = True
            return self._answer(413 if length > 0 else 411, {"message": "the event needs a Content-Length up to 1 MiB"})
        body = self.rfile.read(length)
        if not self.headers.get("content-type", "").lower().startswith("application/json"):
            # A web page can make a browser post plain text here, but not JSON.
            return self._answer(415, {"message": "events are application/json"})
        try:
            answer = self.chat.handle(json.loads(body))
        except (ValueError, KeyError, TypeError) as error:
            return self._answer(400, {"message": f"not a Lambda proxy event: {error!r}"})
        self._answer(200, answer)

    def do_GET(self):
        self._answer(200, {"message": "the chat backend is up"})

    def _answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if self.close_connection:
            self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code="-", size="-"):
        """One line for each event would be too many."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    parser = argparse.ArgumentParser(description="A chat backend for tidegate.")
    parser.add_argument("--port", type=int, default=9000, help="0 takes any free one (default 9000)")
    server = Server(("127.0.0.1", parser.parse_args().port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"chat backend on http://127.0.0.1:{server.server_port}/", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    server.server_close()


if __name__ == "__main__":
    main()
