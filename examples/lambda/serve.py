#!/usr/bin/env python3
"""Serves `handler.handler` as a Lambda container's Runtime Interface Emulator does.

POST /2015-03-31/functions/function/invocations with an event answers 200 with what the handler returns. When the
handler raises, it answers 200 too, with {"errorMessage", "errorType", "stackTrace"}. One invocation runs at a time, as
in a container; unlike the emulator, which refuses the second one, this server lets it wait.

Run it with: python3 serve.py [--port 9000]
"""

import argparse
import json
import signal
import threading
import traceback
import types
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from handler import handler

PATH = "/2015-03-31/functions/function/invocations"
BODY_MAX_BYTES = 6 * 1024 * 1024  # of a Lambda invocation


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 300  # an HTTP connection without a request for this long is closed
    wbufsize = -1
    disable_nagle_algorithm = True
    one_at_a_time = threading.Lock()

    def do_POST(self):
        length = self.headers.get("content-length", "")
        if not length.isdecimal() or int(length) > BODY_MAX_BYTES:
            # The body stays unread, so this HTTP connection has no next request.
            self.close_connection = True
            return self._answer(413, {"message": "the event needs a Content-Length up to 6 MiB"})
        body = self.rfile.read(int(length))
        if self.path != PATH:
            return self._answer(404, {"message": f"invoke {PATH}"})
        with self.one_at_a_time:
            answer = invoke(body)
        self._answer(200, answer)

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


def invoke(body):
    context = types.SimpleNamespace(function_name="function", aws_request_id=str(uuid.uuid4()))
    try:
        answer = handler(json.loads(body), context)
        json.dumps(answer)
        return answer
    except Exception as error:  # whatever a handler raises is its answer
        traceback.print_exc()
        stack = traceback.format_tb(error.__traceback__)
        return {"errorMessage": str(error), "errorType": type(error).__name__, "stackTrace": stack}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def main():
    parser = argparse.ArgumentParser(description="Serves handler.py as a Lambda container does.")
    parser.add_argument("--port", type=int, default=9000, help="0 takes any free one (default 9000)")
    server = Server(("127.0.0.1", parser.parse_args().port), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(f"function on http://127.0.0.1:{server.server_port}{PATH}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    server.server_close()


if __name__ == "__main__":
    main()
