"""Answers JSON with JSON."""


def handle(request):
    """Greets whom the request names: ``{"name": "Ada"}``."""
    name = request.get_json().get("name", "World")
    print(f"greeting {name}")
    return {"message": f"Hello, {name}!"}
