"""The management API as one application; each resource has a module of its own."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from martlet import __version__
from martlet.control import (
    aliases,
    builds,
    cluster,
    dead_letters,
    functions,
    images,
    instances,
    invocations,
    keys,
    logs,
    nodes,
    problems,
    revisions,
    runtimes,
    scaling,
    stats,
    system,
)
from martlet.control.control import Control
from martlet.control.envelope import Envelope
from martlet.control.upload import ChangeBody, FunctionBody
from martlet.frontdoors import aether
from martlet.model import FunctionConfig, LogLine

RESOURCES = (
    functions,
    revisions,
    aliases,
    logs,
    invocations,
    dead_letters,
    builds,
    scaling,
    stats,
    instances,
    nodes,
    cluster,
    runtimes,
    images,
    keys,
    system,
)


def create_app(control: Control) -> FastAPI:
    """Returns the application that serves a control, which the caller opens and closes."""
    app = FastAPI(
        title="Martlet",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        strict_content_type=False,
    )
    app.state.control = control
    problems.install(app)
    for resource in RESOURCES:
        app.include_router(resource.router)
    app.include_router(aether.router)
    app.add_middleware(Envelope)
    app.openapi = lambda: _description(app)  # type: ignore[method-assign]
    return app


def _description(app: FastAPI) -> dict[str, Any]:
    """Returns the OpenAPI description, with what FastAPI cannot see: problems, and bodies read by hand."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description="Deploy functions, and look after them. Errors are problem documents (RFC 9457).",
            routes=app.routes,
        )
        template = "#/components/schemas/{model}"
        models = (problems.Problem, FunctionBody, ChangeBody, FunctionConfig, LogLine)
        _, definitions = models_json_schema(
            [(model, "validation") for model in models], ref_template=template
        )
        schemas = document["components"]["schemas"]
        for name, schema in definitions["$defs"].items():
            schemas.setdefault(name, schema)
        for body in (FunctionBody, ChangeBody):
            schemas[body.__name__]["properties"]["config"] = {"$ref": template.format(model="FunctionConfig")}
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        app.openapi_schema = document
    return app.openapi_schema
