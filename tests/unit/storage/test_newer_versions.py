"""What a newer version has written is read without what this one does not know of it: of every kind there is."""

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from martlet.builder.lines import BuildLine, read_lines
from martlet.model import (
    Alias,
    ApiKey,
    Build,
    BuildState,
    Division,
    Draft,
    Drain,
    ExecutionMode,
    Frozen,
    Function,
    FunctionConfig,
    GitSource,
    Invocation,
    InvocationAnswer,
    InvocationState,
    Node,
    NodeLane,
    Revision,
    Scope,
    Waiting,
)
from martlet.storage import resources
from martlet.storage.invocations import Invocations, Request
from martlet.storage.memory import MemoryStore
from martlet.storage.memory_broker import MemoryBroker
from martlet.storage.registry import Registry, RegistryView
from martlet.storage.resources import Resource
from tests.newer import MEMBER, newer

pytestmark = pytest.mark.anyio

CONFIG = FunctionConfig(environment={"A": "B"})
NODE = Node(
    id="n1",
    host="n1",
    address="n1:8000",
    version="1",
    rungs=(ExecutionMode.PROCESS,),
    runtimes=("python",),
    cores=2,
    memory=2**34,
    load=0.5,
    lanes=(NodeLane(name="lane-0", state="ready", instances=1),),
    started=1.0,
    warm={"f@1": (1, 1)},
    calls={"f@1": 0.5},
    forwarded={"f@1": {"n2": 0.5}},
)
WAITING = Waiting(
    build="b1",
    function="f",
    kind="git",
    git=GitSource(url="https://example.org/f.git"),
    config={"runtime": "python"},
    expect="any",
    replace=True,
    upgrade=False,
    attempts=1,
    started=1.0,
)
THINGS: dict[
    Resource[Any], tuple[tuple[str | int, ...], Frozen, Callable[[Registry], Awaitable[Any]] | None]
] = {
    resources.FUNCTIONS: (
        ("f",),
        Function(name="f", latest=1, counter=1, created=1.0, updated=1.0),
        lambda registry: registry.get_function("f"),
    ),
    resources.REVISIONS: (
        ("f", 1),
        Revision(function="f", number=1, config=CONFIG, code="0" * 64, created=1.0),
        lambda registry: registry.get_revision("f", 1),
    ),
    resources.ALIASES: (
        ("f", "live"),
        Alias(function="f", name="live", weights={1: 100}),
        lambda registry: registry.get_alias("f", "live"),
    ),
    resources.KEYS: (
        ("k1",),
        ApiKey(id="k1", name="k", scopes=frozenset({Scope.INVOKE}), hashes={"a" * 64: None}, created=1.0),
        lambda registry: registry.get_key("k1"),
    ),
    resources.DRAFTS: (
        ("f",),
        Draft(name="f", config=CONFIG, created=1.0),
        lambda registry: registry.get_draft("f"),
    ),
    resources.BUILDS: (
        ("b1",),
        Build(id="b1", function="f", state=BuildState.READY, started=1.0),
        lambda registry: registry.get_build("b1"),
    ),
    resources.NODES: (("n1",), NODE, None),
    resources.DRAINS: (("n1",), Drain(node="n1", since=1.0), None),
    resources.DIVISIONS: (
        ("f", 1),
        Division(function="f", number=1, created=1.0, shares={"n1": 1}),
        None,
    ),
    resources.WAITING: (("b1",), WAITING, lambda registry: _only(registry.list_waiting())),
}


async def _only(listed: Awaitable[list[Any]]) -> Any:
    (found,) = await listed
    return found


def test_every_kind_of_thing_that_the_store_holds_is_tried() -> None:
    assert set(THINGS) == {each for each in vars(resources).values() if isinstance(each, Resource)}


@pytest.mark.parametrize("resource", THINGS, ids=lambda resource: resource.folder)
async def test_a_thing_in_the_store_is_read_by_who_asks_and_by_who_follows(resource: Resource[Any]) -> None:
    path, thing, read = THINGS[resource]
    store = MemoryStore()
    view = RegistryView(store)
    await view.start()
    written = newer(thing)
    assert MEMBER in orjson.loads(written)
    await view.catch_up(await store.put(resource.key(*path), written))
    if read is not None:  # else it is followed only
        assert await read(Registry(store)) == thing
    followed = [view.functions, view.revisions, view.nodes, view.drains, view.divisions]
    held = [each for things in followed for each in things.values()]
    held += [*view.keys.values(), *(each for of in view.aliases.values() for each in of.values())]
    unfollowed = (resources.DRAFTS, resources.BUILDS, resources.WAITING)
    assert held == ([] if resource in unfollowed else [thing])
    await view.close()


async def test_an_invocation_in_a_queue_is_run_and_one_that_has_ended_is_told_of() -> None:
    broker = MemoryBroker()
    invocations = Invocations(broker, most=10, kept=60.0)
    request = Request(
        function="f",
        target="f@1",
        method="POST",
        path="/a",
        headers=b"a: b\r\n",
        created=1.0,
        accepted=2.0,
        body=b"body\nof two lines",
    )
    head, _, body = request.encode().partition(b"\n")
    message = orjson.dumps({**orjson.loads(head), MEMBER: 1}) + b"\n" + body
    await invocations.queue("f").put(message)
    (delivery,) = await invocations.queue("f").take(1, 60.0)
    assert Request.decode(delivery.message) == request
    ended = Invocation(
        id="i1",
        function="f",
        target="f@1",
        state=InvocationState.SUCCEEDED,
        accepted=1.0,
        ended=2.0,
        answer=InvocationAnswer(status=200, headers=(("a", "b"),), body="done"),
    )
    await broker.keep("i1", newer(ended), 60.0)
    assert await invocations.find("i1") == ended
    await broker.close()


def test_what_a_build_said_on_another_machine_is_read() -> None:
    line = BuildLine(time=1.0, message="done")
    assert read_lines(newer(line) + b"\n") == [line]
