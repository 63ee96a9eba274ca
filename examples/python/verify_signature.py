"""How a backend tells the gateway's calls from everybody else's (Standard Webhooks), with nothing but Python.

With `signing` on an integration, every call carries webhook-id, webhook-timestamp and webhook-signature. Copy `verify`
into your backend, or use a library from https://www.standardwebhooks.com. What is signed is the id, the time and the
body; the path, the query string and other headers are not. Remember ids for as long as `TOLERANCE_SECONDS`, if handling
a call twice would matter.

Run as a program, it verifies stdin: verify_signature.py SECRET HEADERS_AS_JSON < body
"""

import base64
import hashlib
import hmac
import json
import sys
import time

TOLERANCE_SECONDS = 300


def verify(secret: str, headers, body: bytes) -> bool:
    """Whether a call with these headers (names in lower case) and this body is the gateway's, and not an old one."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    call_id = headers.get("webhook-id", "")
    timestamp = headers.get("webhook-timestamp", "")
    if not timestamp.isascii() or not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    signed = f"{call_id}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    # One signature for each secret that the gateway has; one of ours is enough.
    signatures = headers.get("webhook-signature", "").encode().split(b" ")
    return any(hmac.compare_digest(expected, signature) for signature in signatures)


if __name__ == "__main__":
    sys.exit(0 if verify(sys.argv[1], json.loads(sys.argv[2]), sys.stdin.buffer.read()) else 1)
