"""A whole ASGI application without a framework: a page, a small API, and a WebSocket that talks back.

FastAPI, Starlette, Litestar or Django put the same kind of callable here.
"""

import json

PAGE = b"""<!doctype html>
<title>Shout</title>
<h1>Shout</h1>
<p>POST some text to <code>shout</code>, or open a WebSocket.</p>
"""


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await talk(receive, send)
    elif scope["type"] == "http":
        await serve(scope, receive, send)


async def serve(scope, receive, send):
    match scope["method"], scope["path"].removeprefix(scope["root_path"]):
        case "GET", "/":
            await respond(send, 200, b"text/html; charset=utf-8", PAGE)
        case "POST", "/shout":
            text = (await read(receive)).decode("utf-8", "replace")
            await respond(send, 200, b"application/json", json.dumps({"shout": text.upper()}).encode())
        case _:
            await respond(send, 404, b"application/json", b'{"error": "there is only / and /shout"}')


async def talk(receive, send):
    while (message := await receive())["type"] != "websocket.disconnect":
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message.get("text") is not None:
            await send({"type": "websocket.send", "text": message["text"].upper()})
        else:
            await send({"type": "websocket.send", "bytes": message["bytes"]})


async def read(receive):
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def respond(send, status, content_type, body):
    headers = [(b"content-type", content_type)]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
