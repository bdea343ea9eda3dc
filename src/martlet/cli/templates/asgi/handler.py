"""A web application: any ASGI framework will do (add it under ``dependencies``), or none, as here."""


async def app(scope, receive, send):
    """Answers ``GET /`` with a greeting and everything else with 404."""
    if scope["type"] != "http":
        return
    path = scope["path"].removeprefix(scope["root_path"])
    found = path == "/"
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200 if found else 404, "headers": headers})
    text = "Hello from ASGI!\n" if found else f"There is nothing at {path}.\n"
    await send({"type": "http.response.body", "body": text.encode()})
