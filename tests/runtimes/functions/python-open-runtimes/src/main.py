"""The contract function for Open Runtimes, in Python."""


def main(context):
    return ROUTES[context.req.path](context)


def request(context):
    req = context.req
    return context.res.json(
        {
            "method": req.method,
            "url": req.url,
            "scheme": req.scheme,
            "host": req.host,
            "port": req.port,
            "path": req.path,
            "query": req.query,
            "queryString": req.query_string,
            "headers": req.headers,
            "bodyText": req.body_text,
        }
    )


def log(context):
    context.log("info line")
    context.error("error line")
    return context.res.text("logged")


def raises(context):
    raise ValueError("the reason ✗")


ROUTES = {
    "/text": lambda context: context.res.text("text ✓"),
    "/json": lambda context: context.res.json({"hello": "world", "unicode": "żółw 🐢"}),
    "/binary": lambda context: context.res.binary(bytes(range(256))),
    "/empty": lambda context: context.res.empty(),
    "/redirect": lambda context: context.res.redirect("/target"),
    "/request": request,
    "/body": lambda context: context.res.json(context.req.body_json),
    "/log": log,
    "/nothing": lambda context: None,
    "/raise": raises,
}
