"""Every request of the management API, written once; `Client` and `AsyncClient` have them all as methods.

Answers are the JSON of the API as it came, so that a client never breaks on what a newer platform adds to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, BinaryIO

from martlet.client.call import Body, Call, Document, Plan, many, none, one, segment


def functions() -> Plan[list[Document]]:
    """Returns every function that the key may see."""
    return many(Call("GET", "/functions"))


def function(name: str) -> Plan[Document]:
    """Returns one function with the configuration of its latest revision."""
    return one(Call("GET", f"/functions/{segment(name)}"))


def create(name: str, code: str, config: Mapping[str, Any] | None = None) -> Plan[Document]:
    """Creates a function from the text of one file; returns it once it serves. `deploy` takes folders too."""
    body = {"name": name, "code": code, "config": dict(config or {})}
    return one(Call("POST", "/functions", json=body))


def update(name: str, code: str | None = None, config: Mapping[str, Any] | None = None) -> Plan[Document]:
    """Makes a new revision from changed code, changed keys of the configuration, or both."""
    body: Document = {"config": dict(config)} if config else {}
    if code is not None:
        body["code"] = code
    return one(Call("PUT", f"/functions/{segment(name)}", json=body))


def delete(name: str) -> Plan[None]:
    """Deletes a function with its revisions, aliases, logs and instances."""
    return none(Call("DELETE", f"/functions/{segment(name)}"))


def invocation(
    name: str,
    body: Body | None = None,
    *,
    json: Any = None,
    method: str = "POST",
    path: str = "/",
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Call:
    """Runs a function and returns its answer, whatever status the function itself gave it.

    Args:
        name: the function, or one of its revisions or aliases (``hello@3``, ``hello@live``).
        body: the request body.
        json: the request body as JSON, instead of ``body``.
        method: the HTTP method.
        path: the path below the function's root.
        query: parameters of the URL.
        headers: further headers.

    Raises:
        ApiError: the platform could not run it, or the handler raised (``code`` is then ``function_error``).
    """
    target = f"/invoke/{segment(name)}/{path.lstrip('/')}".removesuffix("/")
    return Call(
        method, target, query=query or {}, headers=headers or {}, json=json, body=body, of_function=True
    )


def revisions(name: str) -> Plan[list[Document]]:
    """Returns the revisions of a function that can be rolled back to, newest first."""
    return many(Call("GET", f"/functions/{segment(name)}/revisions"))


def rollback(name: str, revision: int) -> Plan[Document]:
    """Makes an earlier revision the one that serves."""
    return one(Call("POST", f"/functions/{segment(name)}/rollback", json={"revision": revision}))


def aliases(name: str) -> Plan[list[Document]]:
    """Returns the aliases of a function."""
    return many(Call("GET", f"/functions/{segment(name)}/aliases"))


def set_alias(name: str, alias: str, weights: Mapping[int, int]) -> Plan[Document]:
    """Points an alias at revisions with weights, 100 together: ``{3: 90, 4: 10}``."""
    body = {"weights": {str(revision): weight for revision, weight in weights.items()}}
    return one(Call("PUT", f"/functions/{segment(name)}/aliases/{segment(alias)}", json=body))


def delete_alias(name: str, alias: str) -> Plan[None]:
    """Deletes an alias."""
    return none(Call("DELETE", f"/functions/{segment(name)}/aliases/{segment(alias)}"))


def logs(name: str, tail: int = 100, request_id: str | None = None) -> Plan[list[Document]]:
    """Returns the last ``tail`` lines that a function wrote, oldest first; of one request only, if asked to."""
    query = {"tail": tail, "request_id": request_id}
    return many(Call("GET", f"/functions/{segment(name)}/logs", query))


def log_stream(name: str, tail: int = 100, request_id: str | None = None) -> Call:
    """Yields the last ``tail`` lines that a function wrote and then each new one, until it is closed."""
    query = {"tail": tail, "follow": True, "request_id": request_id}
    return Call("GET", f"/functions/{segment(name)}/logs", query)


def invocations(name: str, limit: int = 100) -> Plan[list[Document]]:
    """Returns the latest invocations of a function, newest first."""
    return many(Call("GET", f"/functions/{segment(name)}/invocations", query={"limit": limit}))


def invoke_later(
    name: str,
    body: Body | None = None,
    *,
    json: Any = None,
    method: str = "POST",
    path: str = "/",
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Plan[Document]:
    """Lets a function run asynchronously, and returns the invocation; arguments as those of `invoke`."""
    preferring = {**(headers or {}), "prefer": "respond-async"}
    call = invocation(name, body, json=json, method=method, path=path, query=query, headers=preferring)
    return one(replace(call, of_function=False))


def asynchronous(invocation_id: str) -> Plan[Document]:
    """Returns an asynchronous invocation, with its answer once it has one."""
    return one(Call("GET", f"/invocations/{segment(invocation_id)}"))


def dead_letters(name: str, limit: int = 100) -> Plan[list[Document]]:
    """Returns the asynchronous invocations of a function that were given up, the oldest first."""
    return many(Call("GET", f"/functions/{segment(name)}/dead-letters", query={"limit": limit}))


def retry_dead_letter(name: str, invocation_id: str) -> Plan[None]:
    """Runs an asynchronous invocation that was given up again, as if it were new."""
    return none(Call("POST", f"/functions/{segment(name)}/dead-letters/{segment(invocation_id)}/retry"))


def drop_dead_letter(name: str, invocation_id: str) -> Plan[None]:
    """Deletes an asynchronous invocation that was given up."""
    return none(Call("DELETE", f"/functions/{segment(name)}/dead-letters/{segment(invocation_id)}"))


def scaling(name: str) -> Plan[Document]:
    """Returns why a function has as many instances as it has, by node."""
    return one(Call("GET", f"/functions/{segment(name)}/scaling"))


def stats(name: str | None = None) -> Plan[Document]:
    """Returns the counters and latencies of the platform, or of one function."""
    return one(Call("GET", f"/stats/functions/{segment(name)}" if name else "/stats"))


def instances() -> Plan[list[Document]]:
    """Returns the live instances."""
    return many(Call("GET", "/instances"))


def stop_instance(instance: str) -> Plan[None]:
    """Ends an instance, after what it runs; another starts when it is needed."""
    return none(Call("DELETE", f"/instances/{segment(instance)}"))


def keys() -> Plan[list[Document]]:
    """Returns every key, without its secret."""
    return many(Call("GET", "/keys"))


def create_key(
    name: str,
    scopes: list[str],
    *,
    functions: list[str] | None = None,
    expires: float | None = None,
    rate_limit: str | None = None,
    trusted: bool = False,
) -> Plan[Document]:
    """Makes a key; its secret is in the answer, as ``secret``, and never shown again.

    Args:
        name: what it is for, in words.
        scopes: what it may do, of ``invoke``, ``manage`` and ``admin``.
        functions: the only functions it may touch; None is all.
        expires: when it stops working, in seconds since the epoch; None is never.
        rate_limit: how many requests it may make (``100/s``).
        trusted: whether it skips the limit per client address.
    """
    body = {"name": name, "scopes": scopes, "functions": functions, "expires": expires, "trusted": trusted}
    if rate_limit is not None:
        body["rate_limit"] = rate_limit
    return one(Call("POST", "/keys", json=body))


def rotate_key(key: str, overlap: float = 0) -> Plan[Document]:
    """Gives a key a new secret; the old one works for ``overlap`` more seconds."""
    return one(Call("POST", f"/keys/{segment(key)}/rotate", json={"overlap": overlap}))


def revoke_key(key: str) -> Plan[None]:
    """Makes a key useless, now."""
    return none(Call("DELETE", f"/keys/{segment(key)}"))


def builds(function: str | None = None) -> Plan[list[Document]]:
    """Returns the latest builds, newest first, of one function or of all."""
    return many(Call("GET", "/builds", query={"function": function}))


def build(build: str) -> Plan[Document]:
    """Returns one build."""
    return one(Call("GET", f"/builds/{segment(build)}"))


def cancel_build(build: str) -> Plan[Document]:
    """Cancels a build that is queued or under way, and returns it."""
    return one(Call("DELETE", f"/builds/{segment(build)}"))


def build_log(build: str, on_line: Callable[[Document], None]) -> Plan[None]:
    """Calls ``on_line`` with each line of a build's log; returns when the build has ended."""
    return none(Call("GET", f"/builds/{segment(build)}/logs", on_event=on_line))


def images() -> Plan[list[Document]]:
    """Returns the images of containers, by name."""
    return many(Call("GET", "/images"))


def add_image(name: str, archive: BinaryIO) -> Plan[Document]:
    """Imports an image from an archive (OCI, or what ``docker save`` writes), and returns it."""
    return one(Call("POST", "/images", query={"name": name}, body=archive))


def build_images(runtimes: list[str], on_line: Callable[[Document], None]) -> Plan[None]:
    """Builds the Debian roots of runtimes; calls ``on_line`` with what is said, of which a failure has ``failed``."""
    return none(Call("POST", "/images/debian/build", json={"runtimes": runtimes}, on_event=on_line))


def scan_image(name: str) -> Plan[Document]:
    """Returns the packages of an image, and what a scanner knows to be wrong with them."""
    return one(Call("POST", f"/images/{segment(name)}/scan"))


def remove_image(name: str) -> Plan[None]:
    """Removes an image that nobody uses."""
    return none(Call("DELETE", f"/images/{segment(name)}"))


def runtimes() -> Plan[list[Document]]:
    """Returns the runtimes that functions may name."""
    return many(Call("GET", "/runtimes"))


def nodes() -> Plan[list[Document]]:
    """Returns the nodes, with what they hold."""
    return many(Call("GET", "/nodes"))


def drain_node(node: str) -> Plan[Document]:
    """Lets other machines have the work of a node, and returns it."""
    return one(Call("PUT", f"/nodes/{segment(node)}/drain"))


def resume_node(node: str) -> Plan[None]:
    """Lets a node that was drained have work again."""
    return none(Call("DELETE", f"/nodes/{segment(node)}/drain"))


def health() -> Plan[Document]:
    """Returns whether the platform is alive."""
    return one(Call("GET", "/health"))


def ready() -> Plan[Document]:
    """Returns whether the platform can run functions. Raises `ApiError` (``unavailable``) while it cannot."""
    return one(Call("GET", "/ready"))
