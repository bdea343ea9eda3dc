"""Receives webhooks: anybody may call it, so it believes only what is signed with the shared secret."""

import hashlib
import hmac
import logging
import os

SECRET = os.environ["WEBHOOK_SECRET"].encode()


def handle(request):
    expected = "sha256=" + hmac.new(SECRET, request.body, hashlib.sha256).hexdigest()
    given = request.get_header("x-hub-signature-256", "")
    if not hmac.compare_digest(given.encode(), expected.encode()):
        logging.warning("refused a webhook with a wrong signature")
        return {"error": "The signature does not match"}, 401

    event = request.get_json()
    logging.info("received %s", event.get("action", "an event"))
    return {"received": event.get("action")}, 202
