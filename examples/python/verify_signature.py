"""How a backend tells the gateway's calls from everybody else's (Standard Webhooks), with nothing but Python.

With `signing` on an integration, every call carries webhook-id, webhook-timestamp and webhook-signature, and
x-tidegate-signature. Copy these functions into your backend. webhook-signature covers the id, the time and the body:
that is all of an AWS_PROXY call, and any library from https://www.standardwebhooks.com can verify it.
x-tidegate-signature covers the id, the time and all other x-tidegate-* headers: an HTTP_PROXY backend needs both. The
path, the query string and other headers are in neither. Remember ids for as long as `TOLERANCE_SECONDS`, if handling a
call twice would matter.

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
    timestamp = headers.get("webhook-timestamp", "")
    if not timestamp.isascii() or not timestamp.isdigit() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    return is_signed(secret, headers, "webhook-signature", body) and verify_headers(secret, headers)


def verify_headers(secret: str, headers) -> bool:
    names = sorted(name for name in headers if name.startswith("x-tidegate-") and name != "x-tidegate-signature")
    lines = "".join(f"{name}:{headers[name]}\n" for name in names)
    return is_signed(secret, headers, "x-tidegate-signature", lines.encode())


def is_signed(secret: str, headers, name: str, content: bytes) -> bool:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + content
    expected = b"v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    # One signature for each secret that the gateway has; one of ours is enough.
    signatures = headers.get(name, "").encode().split(b" ")
    return any(hmac.compare_digest(expected, signature) for signature in signatures)


if __name__ == "__main__":
    sys.exit(0 if verify(sys.argv[1], json.loads(sys.argv[2]), sys.stdin.buffer.read()) else 1)
