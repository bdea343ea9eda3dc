"""Answers with the request as the function saw it: a look through the platform's eyes."""


def handle(request):
    return {
        "echo": request.get_json(),
        "method": request.method,
        "path": request.path,
        "query": request.query_params,
        "headers": request.headers,
    }
