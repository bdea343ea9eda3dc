"""The application behind the public port: one request, from its head to whoever answers it."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import structlog

from martlet.errors import BadRequest, Forbidden, FunctionNotFound, MartletError, MethodNotAllowed, NotFound
from martlet.gateway.acceptance import Acceptance, is_deferred
from martlet.gateway.admission import Admission, Principal
from martlet.gateway.dispatch import Dispatch
from martlet.gateway.entry import Entry
from martlet.gateway.readiness import READY, Readiness
from martlet.gateway.routing import Route, Routing
from martlet.http.exchange import Exchange
from martlet.http.upstream import HOP_BY_HOP
from martlet.model import Scope
from martlet.node.call import Call
from martlet.node.node import Node
from martlet.node.passage import Passage
from martlet.node.target import Target
from martlet.storage.registry import RegistryView

log = structlog.get_logger()

JOIN = b"/cluster/join"
OPEN_PATHS = frozenset({READY, b"/openapi.json", JOIN})
"""Paths of control that need no key."""
MANAGED = frozenset(
    {
        b"functions",
        b"api",
        b"stats",
        b"instances",
        b"invocations",
        b"nodes",
        b"cluster",
        b"keys",
        b"images",
        b"runtimes",
        b"builds",
        b"metrics",
        b"ready",
        b"openapi.json",
    }
)
"""First segments of the paths that control answers."""
AETHER = b"/api/functions"
"""Where the functions are in the API of Aether."""
ADMINISTERED = frozenset({b"keys"})
"""First segments of paths that take the scope ``admin``."""
CHANGED_BY_ADMINS = frozenset({b"images", b"nodes"})
"""Likewise, but for reading."""
SEEN_BY_CALLERS = frozenset({b"invocations"})
"""First segments of paths that whoever invokes may read."""
IMAGES = b"/images"
NOT_FOR_CONTROL = frozenset({b"authorization", b"expect", b"x-request-id"})
Manage = Callable[[Exchange, bytes, bytes], None]
"""Passes a request to control, as `Hop.send` does."""
SAFE_ID = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


class Gateway:
    """See the module; `Application` of the public server."""

    def __init__(
        self,
        *,
        node: Node,
        view: RegistryView,
        admission: Admission,
        routing: Routing,
        dispatch: Dispatch,
        acceptance: Acceptance,
        manage: Manage,
        readiness: Readiness,
        max_body: int,
        max_upload: int,
        max_image: int,
    ) -> None:
        self._node = node
        self._stats = node.recorder.stats
        self._view = view
        self._admission = admission
        self._routing = routing
        self._dispatch = dispatch
        self._acceptance = acceptance
        self._manage = manage
        self._readiness = readiness
        self._max_body = max_body
        self._max_upload = max_upload
        self._max_image = max_image
        self._prefix = secrets.token_hex(6)
        self._count = 10**7  # so that ids are of one length for long
        view.on_change.append(self._changed)
        self._epoch = object()

    def handle(self, exchange: Exchange) -> None:
        """Answers a request, or passes it to who does."""
        exchange.request_id = self._request_id(exchange.given_id)
        entry: Entry | None = exchange.connection.kept
        try:
            if entry is not None and entry.holds(exchange, self._epoch):
                self._enter(exchange, entry)
                return
            route = self._routing.route(exchange.target, exchange.host)
            if route is not None:
                self._invoke(exchange, route)
            else:
                self._platform(exchange)
        except MartletError as error:
            self._refuse(exchange, error)
        except Exception:
            log.exception("request_failed", request_id=exchange.request_id)
            self._refuse(exchange, MartletError())

    def max_body(self, exchange: Exchange) -> int:
        """Allows what is uploaded to the platform more than what is sent to functions."""
        function = self._routing.route(exchange.target, exchange.host)
        if function is not None:
            return self._max_body
        if exchange.target.startswith(IMAGES):
            return self._max_image
        return self._max_upload if exchange.target.startswith((b"/functions", AETHER)) else self._max_body

    def refused(self, exchange: Exchange, error: MartletError) -> None:
        """Answers a request that is not HTTP as it should be."""
        exchange.request_id = self._request_id(None)
        self._refuse(exchange, error)

    def _refuse(self, exchange: Exchange, error: MartletError) -> None:
        self._stats.refuse(error.code)
        if not exchange.gone:
            exchange.problem(error)

    def _request_id(self, given: bytes | None) -> str:
        if given is not None and len(given) <= 64 and SAFE_ID.issuperset(given) and given:
            return given.decode()
        self._count += 1
        return f"{self._prefix}{self._count}"

    # -- functions

    def _invoke(self, exchange: Exchange, route: Route) -> None:
        target = self._routing.resolve(route.name)
        if target is None:
            self._node.spawn(self._invoke_unknown(exchange, route))
            return
        self._admit(exchange, route, target)

    async def _invoke_unknown(self, exchange: Exchange, route: Route) -> None:
        """A name that is not in memory is looked up in the store once, for those who may know."""
        try:
            principal = self._admission.authenticated(exchange.authorization, exchange.connection.peer)
            name = self._routing.function_name(route.name)
            if name is not None:
                principal.may_touch(name)
                await self._view.lookup_function(name)
            target = self._routing.resolve(route.name)
            if target is None:
                wanted = route.name.decode("utf-8", "replace")
                raise FunctionNotFound(f"there is no function, revision or alias {wanted[:200]!r}")
            self._admit(exchange, route, target)
        except MartletError as error:
            self._refuse(exchange, error)

    def _admit(self, exchange: Exchange, route: Route, target: Target) -> None:
        admission = self._admission
        client = exchange.connection.peer
        if target.public:
            principal = admission.principal(exchange.authorization)
        else:
            principal = admission.authenticated(exchange.authorization, client)
            if not principal.invoke:
                raise Forbidden("this key may not invoke functions (scope invoke)")
            principal.may_touch(target.function)
        tolls = admission.tolls(
            None if target.public else principal,
            client,
            target.bucket,
            target.rate,
            trusted=principal is not None and principal.trusted,
        )
        if is_deferred(exchange, route):
            admission.charge(tolls)
            caller = None if principal is None else principal.id
            strip_key = principal is not None
            self._node.spawn(self._acceptance.accept(exchange, route, target.function, caller, strip_key))
            return
        entry = Entry(
            epoch=self._epoch,
            headers=exchange.headers,
            expires=float("inf") if principal is None or principal.expires is None else principal.expires,
            tolls=tolls,
            passage=Passage.of_client(exchange, target, route.path, strip_key=principal is not None),
        )
        if not self._routing.varies(route.name):
            exchange.connection.kept = entry
        self._enter(exchange, entry)

    def _enter(self, exchange: Exchange, entry: Entry) -> None:
        self._admission.charge(entry.tolls)
        call = exchange.context = Call(exchange, entry.passage)
        self._dispatch.submit(call)

    def _changed(self, _kind: str, _name: str) -> None:
        self._epoch = object()

    # -- the platform itself

    def _platform(self, exchange: Exchange) -> None:
        path = exchange.target.partition(b"?")[0]
        if path == b"/health":
            if exchange.method in (b"GET", b"HEAD"):
                exchange.answer_json(200, {"status": "ok"})
            else:
                exchange.problem(MethodNotAllowed("/health takes GET"), ((b"allow", b"GET, HEAD"),))
            return
        if path == b"/":
            exchange.answer_json(200, {"name": "martlet", "health": "/health", "api": "/openapi.json"})
            return
        if path == READY and self._readiness.answer(exchange):
            return
        segments = path[1:].split(b"/")
        if segments[0] not in MANAGED:
            raise NotFound(f"there is nothing at {path[:200].decode('utf-8', 'replace')}")
        if b"%" in path or b"//" in path or b".." in segments or b"." in segments:
            # Control would read such a path differently from the checks below.
            raise BadRequest(
                "paths of the management API have no escapes, empty segments or dots: names are of a-z, 0-9 and -"
            )
        head = [b"%b %b HTTP/1.1\r\n" % (exchange.method, exchange.target)]
        if path not in OPEN_PATHS:
            principal = self._admission.authenticated(exchange.authorization, exchange.connection.peer)
            self._authorise(principal, exchange.method, segments)
            client = exchange.connection.peer
            self._admission.charge(self._admission.tolls(None, client, trusted=principal.trusted))
            head.append(_identity(principal))
        elif path == JOIN:
            self._admission.charge(self._admission.tolls(None, exchange.connection.peer))
        for name, value in exchange.headers:
            if name not in HOP_BY_HOP and name not in NOT_FOR_CONTROL and not name.startswith(b"x-martlet-"):
                head.append(b"%b: %b\r\n" % (name, value))
        exchange.upgrade = False
        self._manage(exchange, b"".join(head), b"x-request-id: %b\r\n" % exchange.request_id.encode())

    def _authorise(self, principal: Principal, method: bytes, segments: list[bytes]) -> None:
        needed = scope_for(method, segments[0])
        allowed = {
            Scope.ADMIN: principal.admin,
            Scope.MANAGE: principal.manage,
            Scope.INVOKE: principal.invoke or principal.manage,
        }
        if not allowed[needed]:
            raise Forbidden(f"this key may not do that (scope {needed})")
        below = segments[1:] if segments[0] == b"api" else segments
        if below[:1] == [b"functions"] and len(below) > 1:
            principal.may_touch(below[1].decode("utf-8", "replace"))


def scope_for(method: bytes, segment: bytes) -> Scope:
    """Returns what a key must be allowed for a request to control; ``segment`` is the first of its path."""
    reads = method in (b"GET", b"HEAD")
    if reads and segment in SEEN_BY_CALLERS:
        return Scope.INVOKE
    changes = not reads and segment in CHANGED_BY_ADMINS
    return Scope.ADMIN if changes or segment in ADMINISTERED else Scope.MANAGE


def _identity(principal: Principal) -> bytes:
    """Tells control who calls."""
    scopes = ",".join(
        s for s, has in zip(Scope, (principal.invoke, principal.manage, principal.admin), strict=True) if has
    )
    lines = f"x-martlet-key: {principal.id}\r\nx-martlet-scopes: {scopes}\r\n"
    if principal.functions is not None:
        lines += f"x-martlet-functions: {','.join(sorted(principal.functions))}\r\n"
    return lines.encode()
