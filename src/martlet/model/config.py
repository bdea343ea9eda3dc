"""How a function runs."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from martlet.destination import DestinationText
from martlet.model.base import Frozen, Integer, MiB
from martlet.model.names import IMAGE_REFERENCE
from martlet.units import NO_LIMIT, Bytes, Millicores, Rate

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED_ENVIRONMENT = ("LD_", "PYTHON", "MARTLET_", "GCONV_PATH", "GLIBC_TUNABLES")


def _number_as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


EnvironmentValue = Annotated[
    str,
    BeforeValidator(_number_as_text),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "number"}]}, mode="validation"),
]
"""A text, which may be written as a number."""


class ExecutionMode(StrEnum):
    """The rungs of the isolation ladder."""

    WASM = "wasm"
    PROCESS = "process"
    CONTAINER = "container"
    MICROVM = "microvm"


class Network(StrEnum):
    """What a function reaches: itself, the world outside of this machine, or all that this machine reaches."""

    NONE = "none"
    EGRESS = "egress"
    HOST = "host"


class FunctionConfig(Frozen):
    """How a function is run. A field's description is what the configuration reference prints."""

    execution_mode: ExecutionMode = Field(
        ExecutionMode.PROCESS,
        description="The rung of the isolation ladder: `process`, `container` or `microvm`.",
    )
    runtime: str = Field(
        "python", description="The language, or language and version, as `GET /runtimes` lists them."
    )
    image: str | None = Field(
        None,
        pattern=IMAGE_REFERENCE,
        description="With `execution_mode: container` and the runtime `http`: the image of `martlet images list` that "
        "the function is. A revision keeps the image that had this name when it was deployed.",
    )
    handler: str = Field(
        "handle",
        pattern=r"^[A-Za-z0-9_@][A-Za-z0-9_@./:#$-]*$",
        max_length=256,
        description="What to run, as the language writes it: `module.handle`, `src/main.js`, a class; `handle` is the "
        "usual place of the language.",
    )
    timeout: float = Field(
        30, strict=True, gt=0, le=3600, description="Seconds a request may run before its instance is killed."
    )
    memory: Bytes = Field(
        128 * MiB, ge=16 * MiB, le=64 * 1024 * MiB, description="Memory limit of an instance."
    )
    cpu_limit: Millicores | None = Field(
        None,
        ge=10,
        le=256_000,
        description="CPU limit of an instance (`100m` is a tenth of a core); none by default.",
    )
    dependencies: tuple[str, ...] = Field(
        (), max_length=200, description="Packages to install, as pip writes them."
    )
    environment: dict[str, EnvironmentValue] = Field({}, description="Environment variables of the function.")
    network: Network = Field(
        Network.NONE,
        description="What the function reaches: `none` (its own loopback), `egress` (other machines, but neither this "
        "one nor other functions) or `host` (the network of this machine, where `system.allow_host_network` is set); "
        "`system.default_network` by default, and in a microVM `none`.",
    )
    egress_to: tuple[DestinationText, ...] = Field(
        (),
        max_length=64,
        description="With `network: egress`, the only destinations (`10.0.0.0/8:5432`, `203.0.113.0/24`), besides "
        "the resolvers of names; by default all that `egress` reaches.",
    )
    min_instances: Integer = Field(0, ge=0, le=1000, description="Instances kept ready even when idle.")
    max_instances: Integer = Field(10, ge=1, le=10_000, description="Instances there may be at once.")
    concurrency: Integer = Field(1, ge=1, le=1000, description="Requests one instance serves at once.")
    max_queue: Integer = Field(
        1000,
        ge=0,
        le=100_000,
        description="Requests that may wait for an instance before 429 is answered.",
    )
    idle_ttl: float | None = Field(
        None,
        strict=True,
        ge=0,
        le=86_400 * 7,
        description="Seconds an idle instance is kept; `system.warm_instance_ttl` by default.",
    )
    rate_limit: Rate = Field(
        NO_LIMIT,
        description="Requests the function accepts (`100/s`); no limit by default.",
        json_schema_extra={"default": "off"},
    )
    public: bool = Field(
        False, strict=True, description="Whether the function may be invoked without a key (webhooks)."
    )

    @field_validator("handler")
    @classmethod
    def _handler_is_inside(cls, value: str) -> str:
        if ".." in value:
            raise ValueError(f"{value!r} leads out of the code: it cannot have ..")
        return value

    @field_validator("dependencies")
    @classmethod
    def _dependencies_are_lines(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for line in value:
            if not line.strip() or len(line.splitlines()) > 1:
                raise ValueError(f"{line[:200]!r} is not one line: write one package a line")
        return value

    @field_validator("environment")
    @classmethod
    def _environment_is_safe(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if not _ENVIRONMENT_NAME.fullmatch(name):
                raise ValueError(f"{name!r} is not a variable name: use letters, digits and _")
            if name.startswith(_RESERVED_ENVIRONMENT):
                raise ValueError(f"{name!r} is reserved: it would change how the runtime itself starts")
            if "\0" in text:
                raise ValueError(f"the value of {name!r} has a NUL byte")
        if sum(len(k) + len(v) for k, v in value.items()) > 64 * 1024:
            raise ValueError("all variables together are over 64 KiB: put large data into the code")
        return value

    @model_validator(mode="after")
    def _instances_are_ordered(self) -> FunctionConfig:
        if self.min_instances > self.max_instances:
            raise ValueError(
                f"min_instances ({self.min_instances}) is over max_instances ({self.max_instances})"
            )
        return self
