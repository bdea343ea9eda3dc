"""Receives webhooks: the sender signs the body with a shared secret, as GitHub does it."""

import hashlib
import hmac
import os


def handle(request):
    """Accepts an event whose ``X-Hub-Signature-256`` is right."""
    secret = os.environ["WEBHOOK_SECRET"].encode()
    expected = "sha256=" + hmac.new(secret, request.body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.get_header("x-hub-signature-256") or ""):
        return {"error": "the signature is wrong"}, 401, {}
    event = request.get_json()
    print(f"received {event.get('action', 'an event')}")
    return {"received": True}
