"""Greets whoever is named in the JSON body."""


def handle(request):
    name = request.get_json().get("name", "World")
    return {"message": f"Hello, {name}!"}
