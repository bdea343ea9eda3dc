import pytest

from martlet.errors import Conflict, FunctionNotFound, NotFound
from martlet.model import Alias, ApiKey, Build, BuildState, Function, FunctionConfig, Revision, Scope
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry

pytestmark = pytest.mark.anyio


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def registry(store: MemoryStore) -> Registry:
    return Registry(store)


def function(name: str = "hello", latest: int = 1) -> Function:
    return Function(name=name, latest=latest, counter=latest, created=1.0, updated=2.0)


def revision(name: str = "hello", number: int = 1) -> Revision:
    config = FunctionConfig(memory="64Mi", cpu_limit="100m", rate_limit="5/s", environment={"A": "é"})
    return Revision(function=name, number=number, config=config, code="a" * 64, created=1.5)


def alias(name: str = "live", owner: str = "hello") -> Alias:
    return Alias(function=owner, name=name, weights={1: 90, 2: 10})


def key(key_id: str = "k1") -> ApiKey:
    return ApiKey(
        id=key_id,
        name="ci",
        scopes=frozenset({Scope.INVOKE, Scope.MANAGE}),
        functions=("hello",),
        hashes={"ab" * 32: None, "cd" * 32: 12.5},
        rate_limit="1000/min",
        created=1.0,
    )


def build(build_id: str = "b1") -> Build:
    return Build(id=build_id, function="hello", state=BuildState.PACKING, started=1.0)


async def test_what_is_put_is_what_is_got(registry: Registry) -> None:
    await registry.put_function(function())
    await registry.put_revision(revision())
    await registry.put_alias(alias())
    await registry.put_key(key())
    await registry.put_build(build())
    assert await registry.get_function("hello") == function()
    assert await registry.get_revision("hello", 1) == revision()
    assert await registry.get_alias("hello", "live") == alias()
    assert await registry.get_key("k1") == key()
    assert await registry.get_build("b1") == build()


async def test_the_keys_are_those_of_the_design(registry: Registry, store: MemoryStore) -> None:
    await registry.put_function(function())
    await registry.put_revision(revision(number=42))
    await registry.put_alias(alias())
    await registry.put_key(key())
    await registry.put_build(build())
    assert [entry.key for entry in (await store.list(""))[0]] == [
        "/aliases/hello/live",
        "/builds/b1",
        "/functions/hello",
        "/keys/k1",
        "/revisions/hello/00000042",
    ]


async def test_what_is_missing_is_named(registry: Registry) -> None:
    with pytest.raises(FunctionNotFound, match="there is no function 'hello'"):
        await registry.get_function("hello")
    with pytest.raises(FunctionNotFound, match="there is no revision 'hello@3'"):
        await registry.get_revision("hello", 3)
    with pytest.raises(FunctionNotFound, match="there is no alias 'hello@live'"):
        await registry.get_alias("hello", "live")
    with pytest.raises(NotFound, match="there is no key 'k1'"):
        await registry.get_key("k1")
    with pytest.raises(NotFound, match="there is no build 'b1'"):
        await registry.get_build("b1")


async def test_deleting_twice_is_not_found(registry: Registry) -> None:
    await registry.put_function(function())
    await registry.put_revision(revision())
    await registry.put_alias(alias())
    await registry.put_key(key())
    await registry.put_build(build())
    for delete, arguments in [
        (registry.delete_function, ("hello",)),
        (registry.delete_revision, ("hello", 1)),
        (registry.delete_alias, ("hello", "live")),
        (registry.delete_key, ("k1",)),
        (registry.delete_build, ("b1",)),
    ]:
        await delete(*arguments)
        with pytest.raises(NotFound):
            await delete(*arguments)


async def test_lists_are_of_one_function_and_in_order(registry: Registry) -> None:
    for number in (10, 2, 1):
        await registry.put_revision(revision(number=number))
    await registry.put_revision(revision("hello-2"))
    await registry.put_alias(alias("stable"))
    await registry.put_alias(alias("canary"))
    await registry.put_alias(alias("live", "hello-2"))
    for name in ("hello-2", "hello"):
        await registry.put_function(function(name))
    assert [found.number for found in await registry.list_revisions("hello")] == [1, 2, 10]
    assert [found.name for found in await registry.list_aliases("hello")] == ["canary", "stable"]
    assert [found.name for found in await registry.list_functions()] == ["hello", "hello-2"]
    assert await registry.list_keys() == []
    assert await registry.list_builds() == []


async def test_writes_return_the_store_revision(registry: Registry, store: MemoryStore) -> None:
    assert await registry.put_function(function()) == 1
    assert await registry.put_key(key()) == 2
    assert await registry.delete_function("hello") == 3
    assert await store.revision() == 3


async def test_a_function_is_made_once(registry: Registry) -> None:
    await registry.put_function(function(), expect_revision=0)
    with pytest.raises(Conflict, match="the function 'hello' exists already"):
        await registry.put_function(function(latest=2), expect_revision=0)
    assert await registry.get_function("hello") == function()


async def test_a_function_changed_meanwhile_is_a_conflict(registry: Registry) -> None:
    await registry.put_function(function())
    found, read_at = await registry.read_function("hello")
    assert found == function()
    await registry.put_function(function(latest=2), expect_revision=read_at)
    with pytest.raises(Conflict, match="was changed meanwhile"):
        await registry.put_function(function(latest=3), expect_revision=read_at)
    with pytest.raises(Conflict, match="was changed meanwhile"):
        await registry.delete_function("hello", expect_revision=read_at)
    assert await registry.get_function("hello") == function(latest=2)


async def test_a_function_deleted_meanwhile_is_a_conflict(registry: Registry) -> None:
    await registry.put_function(function())
    _, read_at = await registry.read_function("hello")
    await registry.delete_function("hello")
    with pytest.raises(Conflict, match="was deleted meanwhile"):
        await registry.put_function(function(latest=2), expect_revision=read_at)


async def test_a_revision_never_changes(registry: Registry) -> None:
    await registry.put_revision(revision())
    with pytest.raises(Conflict, match="the revision 'hello@1' exists already"):
        await registry.put_revision(revision())
