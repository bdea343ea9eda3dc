"""What /openapi.json says is what the management API does, whatever it is sent."""

import asyncio
import multiprocessing
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, given, settings

from martlet.control.api import create_app
from tests.unit.control.conftest import HANDLER, Platform, running

schemathesis.checks.load_all_checks()
CHECKS = schemathesis.checks.CHECKS.get_by_names(
    [
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "unsupported_method",
        "missing_required_header",
    ]
)
REFUSED = schemathesis.checks.CHECKS.get_by_names(["negative_data_rejection"])
FORM = "multipart/form-data"
"""In it, whatever is sent is a text."""


def serve(folder: Path, listener: socket.socket) -> None:
    """Serves the API of a platform that has a function, until SIGTERM."""

    async def run() -> None:
        # Which uvicorn sends again when it has stopped: the platform is to end as well.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
        async with running(Platform(folder, revisions_kept=2)) as platform:
            await platform.create("hello", HANDLER)
            await platform.client.put("/functions/hello/aliases/live", json={"weights": {"1": 100}})
            config = uvicorn.Config(
                create_app(platform.control), log_config=None, access_log=False, lifespan="off"
            )
            await uvicorn.Server(config).serve([listener])

    asyncio.run(run())


@pytest.fixture(scope="module")
def description(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    """What an API on a port of its own says of itself."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    folder = tmp_path_factory.mktemp("api")
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(folder, listener))
    server.start()
    document = httpx2.get(f"{url}/openapi.json", timeout=60).json()
    del document["security"]  # the gateway sees to that
    described = schemathesis.openapi.from_dict(document)
    described.config.update(base_url=url)
    yield described
    server.terminate()
    server.join(30)
    listener.close()


def operations() -> list[tuple[str, str]]:
    """Returns the method and path of everything that is described."""
    document = create_app(None).openapi()  # type: ignore[arg-type]
    return [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]


@pytest.mark.parametrize(("method", "path"), operations())
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_an_operation_answers_as_described(
    description: schemathesis.BaseSchema, method: str, path: str, mode: schemathesis.GenerationMode
) -> None:
    operation = description[path][method]
    takes_something = bool(list(operation.iter_parameters()) or operation.body)
    if mode is schemathesis.GenerationMode.NEGATIVE and not takes_something:
        return  # there is nothing to get wrong

    @given(operation.as_strategy(generation_mode=mode))
    @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(case: schemathesis.Case) -> None:
        if case.query:
            case.query.pop("follow", None)  # such an answer has no end
        checks = CHECKS if case.media_type == FORM else [*CHECKS, *REFUSED]
        case.call_and_validate(checks=checks, timeout=30)

    check()
