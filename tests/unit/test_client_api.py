"""The client asks only for what the management API describes of itself."""

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from martlet.client import plans
from martlet.client.call import Call
from martlet.control.api import create_app
from martlet.control.control import Control
from martlet.control.lanes import Lanes
from martlet.drivers.networks import Networks
from martlet.model import Network
from martlet.runtimes.catalogue import Catalogue
from martlet.settings import Settings
from martlet.storage.blobs import Blobs
from martlet.storage.memory import MemoryStore
from martlet.storage.memory_broker import MemoryBroker

CALLS = {
    "functions": plans.functions(),
    "function": plans.function("hello"),
    "create": plans.create("hello", "code", {"timeout": 1}),
    "update": plans.update("hello", "code", {"timeout": 1}),
    "delete": plans.delete("hello"),
    "revisions": plans.revisions("hello"),
    "rollback": plans.rollback("hello", 1),
    "aliases": plans.aliases("hello"),
    "set_alias": plans.set_alias("hello", "live", {1: 100}),
    "delete_alias": plans.delete_alias("hello", "live"),
    "logs": plans.logs("hello", 1, "r1"),
    "log_stream": plans.log_stream("hello", 1, "r1"),
    "invocations": plans.invocations("hello", 1),
    "asynchronous": plans.asynchronous("i1"),
    "dead_letters": plans.dead_letters("hello", 1),
    "retry_dead_letter": plans.retry_dead_letter("hello", "i1"),
    "drop_dead_letter": plans.drop_dead_letter("hello", "i1"),
    "scaling": plans.scaling("hello"),
    "stats": plans.stats(),
    "stats of one": plans.stats("hello"),
    "instances": plans.instances(),
    "stop_instance": plans.stop_instance("i1"),
    "keys": plans.keys(),
    "create_key": plans.create_key("x", ["invoke"], rate_limit="1/s"),
    "rotate_key": plans.rotate_key("k1", 1),
    "revoke_key": plans.revoke_key("k1"),
    "images": plans.images(),
    "add_image": plans.add_image("shop", BytesIO(b"archive")),
    "build_images": plans.build_images(["python"], print),
    "scan_image": plans.scan_image("shop"),
    "remove_image": plans.remove_image("shop"),
    "builds": plans.builds("hello"),
    "build": plans.build("b1"),
    "build_log": plans.build_log("b1", print),
    "cancel_build": plans.cancel_build("b1"),
    "runtimes": plans.runtimes(),
    "nodes": plans.nodes(),
    "drain_node": plans.drain_node("n1"),
    "resume_node": plans.resume_node("n1"),
    "health": plans.health(),
    "ready": plans.ready(),
}


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the API says of itself."""
    data: Path = tmp_path_factory.mktemp("data")
    settings = Settings.model_validate({"system": {"function_storage_path": data}})
    blobs = Blobs.local(data / "blobs")
    networks = Networks(Network.NONE, {})
    control = Control(
        settings, MemoryStore(), blobs, Lanes([], 1), networks, Catalogue.load(), MemoryBroker()
    )
    return create_app(control).openapi()


@pytest.mark.parametrize("name", CALLS)
def test_the_platform_knows_what_the_client_asks(name: str, description: dict[str, Any]) -> None:
    call = CALLS[name] if isinstance(CALLS[name], Call) else next(CALLS[name])
    operation = _operation(description, call)
    parameters = {each["name"] for each in operation.get("parameters", []) if each["in"] == "query"}
    assert call.query.keys() <= parameters
    if call.json is not None:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        assert call.json.keys() <= _properties(description, schema).keys()


def test_every_plan_is_looked_at() -> None:
    described = {name for name in vars(plans) if not name.startswith("_") and _is_plan(name)}
    assert described - {"invocation", "invoke_later"} <= CALLS.keys()


def _is_plan(name: str) -> bool:
    return getattr(getattr(plans, name), "__module__", "") == plans.__name__


def _operation(description: dict[str, Any], call: Call) -> dict[str, Any]:
    for template, operations in description["paths"].items():
        if (
            re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), call.path)
            and call.method.lower() in operations
        ):
            return operations[call.method.lower()]
    raise AssertionError(f"the API has no {call.method} {call.path}")


def _properties(description: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    choices = schema.get("anyOf", [schema])
    name = next(choice["$ref"] for choice in choices if "$ref" in choice).rpartition("/")[2]
    return description["components"]["schemas"][name]["properties"]
