"""What the names in requests lead to."""

from collections.abc import AsyncIterator

import pytest

from martlet.gateway.routing import Routing
from martlet.model import Function, FunctionConfig, Revision
from martlet.storage.memory import MemoryStore
from martlet.storage.registry import Registry, RegistryView

pytestmark = pytest.mark.anyio


@pytest.fixture
async def routing() -> AsyncIterator[Routing]:
    """Knows the revisions 1 and 20 of the function hello."""
    store = MemoryStore()
    registry = Registry(store)
    for number in (1, 20):
        revision = Revision(
            function="hello", number=number, config=FunctionConfig(), code="a" * 64, created=1.0
        )
        await registry.put_revision(revision)
    await registry.put_function(Function(name="hello", latest=20, counter=20, created=1.0, updated=1.0))
    view = RegistryView(store)
    await view.start()
    yield Routing(view, "localhost")
    await view.close()


@pytest.mark.parametrize(
    ("name", "revision"), [(b"hello", 20), (b"hello@latest", 20), (b"hello@20", 20), (b"hello@1", 1)]
)
async def test_a_name_leads_to_a_revision(routing: Routing, name: bytes, revision: int):
    target = routing.resolve(name)

    assert target is not None
    assert target.revision.number == revision


@pytest.mark.parametrize(
    "number",
    [b"2", b"0", b"", b"01", b"+1", b"1_0", b"1" * 5000, b"0" * 5000 + b"1", "\u0661".encode(), b"1\n"],
)
async def test_a_revision_has_no_other_name_than_its_number(routing: Routing, number: bytes):
    assert routing.resolve(b"hello@" + number) is None


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (b"/2015-03-31/functions/hello/invocations", b"hello"),
        (b"/2015-03-31/functions/hello:live/invocations?Qualifier=x", b"hello@live"),
        (b"/2015-03-31/functions/hello%3A20/invocations", b"hello@20"),
    ],
)
async def test_aws_invoke_leads_to_the_function_with_all_of_its_path(
    routing: Routing, target: bytes, name: bytes
):
    route = routing.route(target, None)

    assert route is not None
    assert (route.name, route.path) == (name, target)


@pytest.mark.parametrize("target", [b"/2015-03-31/functions/hello", b"/2015-03-31/functions/hello/versions"])
async def test_the_rest_of_awss_api_leads_nowhere(routing: Routing, target: bytes):
    assert routing.route(target, None) is None
