"""The nouns of Martlet as frozen types: what is stored, what travels, what people see.

Times are seconds since the epoch unless a name ends in ``_ms``; sizes are bytes; CPU is thousandths of a core.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from martlet.destination import DestinationText
from martlet.peer_address import PeerAddressText
from martlet.units import NO_LIMIT, Bytes, Millicores, Rate

FUNCTION_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
ALIAS_NAME = r"^[a-z]([a-z0-9-]{0,61}[a-z0-9])?$"
IMAGE_NAME = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"
IMAGE_REFERENCE = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?(@[0-9a-f]{64})?$"
"""An image by its name, or one that had this name once by name and digest: ``shop@9f86…``."""
LATEST = "latest"
MiB = 1024**2

FunctionName = Annotated[str, StringConstraints(pattern=FUNCTION_NAME)]
AliasName = Annotated[str, StringConstraints(pattern=ALIAS_NAME)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]

_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_GIT_URL = re.compile(r"(https?|ssh|file)://[!-~]+")
_GIT_PASSWORD = re.compile(r"[a-z]+://[^/@]*:[^/@]*@")
_GIT_REF = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*")
_RESERVED_ENVIRONMENT = ("LD_", "PYTHON", "MARTLET_", "GCONV_PATH", "GLIBC_TUNABLES")


class Frozen(BaseModel):
    """A value that never changes and has no members but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


Integer = Annotated[int, Field(strict=True), BeforeValidator(_whole)]
"""A whole number as JSON has it: ``1.0`` is one, ``"1"`` and ``true`` are none."""


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


class Scope(StrEnum):
    """What a key may do. ``admin`` does not imply the others; keys list what they have."""

    INVOKE = "invoke"
    MANAGE = "manage"
    ADMIN = "admin"


class Role(StrEnum):
    """What a platform does: takes requests, runs instances, manages. One that does all is complete by itself."""

    GATEWAY = "gateway"
    NODE = "node"
    CONTROL = "control"


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


class Revision(Frozen):
    """One immutable code + configuration of a function.

    ``code`` and ``dependencies`` are digests (sha256, hex) of packages in the blob store, and so is ``source``, what
    ``code`` was built of where that is something else; ``commit`` is the one of git that it was made of.
    """

    function: FunctionName
    number: int = Field(ge=1)
    config: FunctionConfig
    source: Digest | None = None
    commit: str | None = None
    code: Digest
    dependencies: Digest | None = None
    created: float

    @property
    def id(self) -> str:
        """``hello@3``."""
        return f"{self.function}@{self.number}"


class GitSource(Frozen):
    """A folder in a commit of a git repository."""

    url: str = Field(
        max_length=1000,
        description="The repository: `https://`, `ssh://`, or `file://` for one in `system.build_folders`.",
    )
    ref: str = Field("HEAD", max_length=200, description="A branch, a tag or a commit.")
    path: str = Field("", max_length=500, description="The folder of the function in it.")

    @field_validator("url")
    @classmethod
    def _url_is_plain(cls, value: str) -> str:
        if not _GIT_URL.fullmatch(value):
            raise ValueError(
                "write https://, http://, ssh:// or file:// and where the repository is, without spaces"
            )
        if _GIT_PASSWORD.match(value):
            raise ValueError("it would show a password to whoever sees the build: leave that out")
        return value

    @field_validator("ref")
    @classmethod
    def _ref_is_a_name(cls, value: str) -> str:
        if not _GIT_REF.fullmatch(value) or ".." in value:
            raise ValueError(f"{value!r} is no name of a branch or tag, nor a commit")
        return value

    @field_validator("path")
    @classmethod
    def _path_stays_inside(cls, value: str) -> str:
        if value.startswith("/") or ".." in value.split("/") or not value.isprintable():
            raise ValueError(f"{value!r} is no folder below the top of the repository")
        return value


class Draft(Frozen):
    """A function that is named and configured, and has no code yet."""

    name: FunctionName
    config: FunctionConfig
    created: float


class FunctionState(StrEnum):
    """What a function is doing, as its last deploy left it."""

    READY = "ready"
    FAILED = "failed"


class Function(Frozen):
    """A name people invoke, and what it points at. ``latest`` is the revision that serves; ``counter`` the highest
    number ever given, so that a number is never given twice."""

    name: FunctionName
    latest: int = Field(ge=1)
    counter: int = Field(ge=1)
    created: float
    updated: float


class Alias(Frozen):
    """A named pointer at revisions with weights: ``{3: 90, 4: 10}``."""

    function: FunctionName
    name: AliasName
    weights: dict[int, int] = Field(min_length=1, max_length=10)

    @field_validator("weights")
    @classmethod
    def _weights_add_up(cls, value: dict[int, int]) -> dict[int, int]:
        if any(weight < 0 for weight in value.values()) or sum(value.values()) != 100:
            raise ValueError("the weights are percentages: none negative, 100 together")
        return value


class ApiKey(Frozen):
    """A key as it is stored: never itself, only the sha256 of its random text.

    ``functions`` limits it to these functions (None: all). ``trusted`` keys skip the limit per client address.
    ``hashes`` holds the current secret and, while a rotation overlaps, the one before with its own expiry.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    functions: tuple[FunctionName, ...] | None = None
    hashes: dict[Digest, float | None]
    rate_limit: Rate = NO_LIMIT
    trusted: bool = False
    created: float
    expires: float | None = None


class NodeLane(Frozen):
    """A lane of a node: how many instances it has and may have, and how many cells stand ready.

    One that is ``away`` does not answer: it is being started anew.
    """

    name: str
    state: Literal["ready", "away"]
    instances: int = 0
    capacity: int = 0
    cells: int = 0


class Node(Frozen):
    """A platform with all its lanes, as it tells the others.

    ``id`` is that of its data folder, ``address`` where it takes requests, if it does, ``peer`` where the other
    machines reach it, if they do. ``memory`` is the machine's, ``load`` its processes that ran or wanted to in the last
    minute, for each of its ``cores``; ``memory_free`` and ``cpu_free`` are what no instance was promised. ``warm`` has
    the instances of each revision, and how many more requests they take now. ``started`` is when it joined.
    """

    id: str
    host: str
    address: str | None
    roles: tuple[Role, ...] = tuple(Role)
    version: str
    rungs: tuple[ExecutionMode, ...]
    runtimes: tuple[str, ...]
    cores: int
    memory: int
    load: float
    lanes: tuple[NodeLane, ...]
    started: float
    peer: PeerAddressText | None = None
    memory_free: int = 0
    cpu_free: int = 0
    warm: dict[str, tuple[int, int]] = Field({})


class BuildState(StrEnum):
    """The steps of a deploy, in order; ``failed`` and ``cancelled`` may follow any but ``ready``."""

    QUEUED = "queued"
    PACKING = "packing"
    BUILDING = "building"
    PACKED = "packed"
    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BuildPhase(StrEnum):
    """The same as other platforms name it, with where a deploy ended that failed or was cancelled."""

    CREATED = "created"
    PACKING = "packing"
    PACKING_FAILED = "packing_failed"
    PACKED = "packed"
    INITIALIZING = "initializing"
    INITIALIZING_FAILED = "initializing_failed"
    READY = "ready"

    def after(self, state: BuildState) -> BuildPhase:
        """Returns the phase of a build that comes from this one into a state."""
        if state in (BuildState.FAILED, BuildState.CANCELLED):
            late = self in (BuildPhase.PACKED, BuildPhase.INITIALIZING)
            return BuildPhase.INITIALIZING_FAILED if late else BuildPhase.PACKING_FAILED
        return _PHASES[state]


_PHASES = {
    BuildState.QUEUED: BuildPhase.CREATED,
    BuildState.PACKING: BuildPhase.PACKING,
    BuildState.BUILDING: BuildPhase.PACKING,
    BuildState.PACKED: BuildPhase.PACKED,
    BuildState.LOADING: BuildPhase.INITIALIZING,
    BuildState.READY: BuildPhase.READY,
}


class Build(Frozen):
    """One deploy: from what was uploaded to a revision that serves (or a log that says why not).

    ``commit`` is what it was made of where it came from git.
    """

    id: str
    function: FunctionName
    state: BuildState
    phase: BuildPhase = BuildPhase.CREATED
    revision: int | None = None
    error: str | None = None
    started: float
    finished: float | None = None
    commit: str | None = None


class Waiting(Frozen):
    """A deploy that has been accepted and has not ended, as it is kept.

    ``build`` is the id of its build, ``node`` that of the node whose control deploys.
    """

    build: str
    node: str = ""
    function: FunctionName
    kind: Literal["nothing", "inline", "archive", "git"]
    file: str = ""
    git: GitSource | None = None
    config: dict[str, Any]
    expect: str
    replace: bool
    upgrade: bool
    attempts: int
    started: float


class InstanceState(StrEnum):
    """What an instance is doing."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"


class InstanceView(Frozen):
    """A live instance as ``/instances`` shows it."""

    id: str
    function: FunctionName
    revision: int
    node: str
    driver: ExecutionMode | Literal["fake"]
    state: InstanceState
    pid: int | None
    created: float
    last_used: float
    requests: int
    memory_bytes: int | None = None


class InvocationView(Frozen):
    """One finished run of a function, as ``/functions/{name}/invocations`` shows it."""

    id: str
    function: FunctionName
    revision: int
    status: int
    cold: bool
    started: float
    queue_ms: float
    start_ms: float
    run_ms: float
    error: str | None = None


class InvocationState(StrEnum):
    """How far an asynchronous invocation is; what has failed for good is a dead letter until somebody retries it."""

    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


class InvocationAnswer(Frozen):
    """What a function has answered; ``body`` is text, or base64 where it is no UTF-8; None: it is too large."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: str | None
    base64: bool = False


class Invocation(Frozen):
    """An asynchronous invocation, as ``/invocations/{id}`` shows it.

    ``target`` is the function, revision or alias it is for; ``attempts`` counts those that have ended, and ``answer``
    and ``error`` (a problem document) are of the last.
    """

    id: str
    function: FunctionName
    target: str
    state: InvocationState
    accepted: float
    attempts: int = 0
    ended: float | None = None
    answer: InvocationAnswer | None = None
    error: dict[str, Any] | None = None


class DeadInvocation(Frozen):
    """An asynchronous invocation that was tried as often as may be, as ``/functions/{name}/dead-letters`` shows it."""

    id: str
    target: str
    method: str
    path: str
    accepted: float
    died: float
    attempts: int
    bytes: int


class ScalingAction(StrEnum):
    """What was decided about the instances of a function; ``stay`` is not to start one that was asked for."""

    START = "start"
    STAY = "stay"
    END = "end"
    FAIL = "fail"


class ScalingDecision(Frozen):
    """A decision about the instances of a revision on one node, as ``/functions/{name}/scaling`` shows it.

    ``times`` is how often in a row it was decided; ``time`` is of the last time, and ``instances`` of all together.
    """

    time: float
    node: str
    revision: int
    action: ScalingAction
    instances: int
    times: int
    reason: str


class KeepAliveView(Frozen):
    """When an idle function has instances: until ``linger``, and from ``begin`` to ``end``, in seconds after its last
    call. ``basis`` says what this was derived from."""

    basis: str
    linger: float
    begin: float
    end: float


class NodeScaling(Frozen):
    """Why a node has as many instances of a function as it has.

    ``keep_alive`` is in force, ``learned`` what the function's own history says, from ``idle_times`` of them.
    """

    node: str
    instances: int
    busy: int
    starting: int
    waiting: int
    last_used: float | None
    why: str
    keep_alive: KeepAliveView
    learned: KeepAliveView
    idle_times: int
    decisions: list[ScalingDecision]


class LogLine(Frozen):
    """One line a function wrote. ``stream`` is stdout, stderr or the level of a logging call."""

    time: float
    function: FunctionName
    revision: int
    instance: str
    request_id: str | None
    stream: str
    message: str
