"""An AWS Lambda function as it is deployed there: it knows nothing of Martlet."""

import base64
import json
import re
import unicodedata


def lambda_handler(event, context):
    """Makes a slug of a title, for an HTTP request (``?title=``, or JSON) or for a direct invocation."""
    if "requestContext" not in event:
        return {"slug": slug_of(event["title"])}
    title = title_in(event)
    if title is None:
        return {"statusCode": 400, "body": json.dumps({"error": "say a title"})}
    return {
        "statusCode": 200,
        "headers": {"content-type": "application/json", "x-request": context.aws_request_id},
        "body": json.dumps({"slug": slug_of(title)}),
    }


def title_in(event):
    if "body" not in event:
        return event.get("queryStringParameters", {}).get("title")
    body = event["body"]
    return json.loads(base64.b64decode(body) if event["isBase64Encoded"] else body).get("title")


def slug_of(title):
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
