"""What can be set: the tables ``system:`` and ``functions:`` of the configuration file, validated."""

from __future__ import annotations

import ipaddress
import os
from hashlib import blake2b
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from martlet.bucket import BucketText
from martlet.model import (
    IMAGE_NAME,
    ExecutionMode,
    Frozen,
    FunctionConfig,
    FunctionName,
    MiB,
    Network,
    Role,
)
from martlet.paths import default_storage_path, runtime_path
from martlet.peer_address import PeerAddressText
from martlet.queue_address import SQLITE as SQLITE_QUEUE
from martlet.queue_address import QueueAddress
from martlet.store_address import REVEAL, SQLITE, StoreAddress
from martlet.units import Bytes, EventRate, Rate

BASE_IMAGE = rf"^(\.{{0,2}}/.+|(docker|podman)://.+)$|{IMAGE_NAME}"
"""`host`, `debian` and names of images; a path; an image of an engine."""


class SystemSettings(Frozen):
    """The ``system:`` table. A field's description is what the configuration reference prints."""

    roles: tuple[Role, ...] = Field(
        tuple(Role),
        min_length=1,
        description="What this machine does: `gateway` (takes requests), `node` (runs functions), `control` (manages), "
        "`builder` (builds what is deployed), several with commas between them, or `all`. What it leaves out is for "
        "other machines with the same `store`.",
    )
    peer_address: PeerAddressText | None = Field(
        None,
        description="Where other machines of a cluster reach this one, and it listens: `10.0.0.1:8001`, over mutual "
        "TLS (`martlet cluster init`). Without it nobody sends it requests but its own gateway.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    api_gateway_port: int = Field(8000, ge=0, le=65535, description="Port of everything; 0 takes a free one.")
    lanes: int = Field(0, ge=0, le=256, description="Gateway-and-node processes; 0 is one per core.")
    pin_lanes: bool = Field(True, description="Keep each lane, with its instances, on a core of its own.")
    development: bool = Field(
        False, description="Accept `demo-key` and `admin-key`; only allowed while listening on loopback."
    )
    domain: str = Field("localhost", description="`NAME.DOMAIN` in the Host header routes to function NAME.")
    function_storage_path: Path = Field(
        default_factory=default_storage_path, description="Folder of the database, packages, logs and caches."
    )
    store: StoreAddress = Field(
        SQLITE,
        description="What keeps functions, keys and builds: `sqlite` (in `function_storage_path`), or "
        "`etcd://USER:PASSWORD@HOST:2379,HOST2:2379/PREFIX?ca=FILE&cert=FILE&key=FILE`, the members of a cluster, the "
        "nearest first. The password may also be in `FAAS_STORE_PASSWORD`, or in a file (`?password_file=FILE`).",
    )
    queue: QueueAddress = Field(
        SQLITE_QUEUE,
        description="What keeps asynchronous invocations: `sqlite` (in `function_storage_path`), or a database of a "
        "Redis that is of this platform only, `redis://USER:PASSWORD@HOST:6379/0` (`rediss://HOST/0?ca=FILE` with "
        "TLS). The password may also be in `FAAS_QUEUE_PASSWORD`.",
    )
    blobs: BucketText | None = Field(
        None,
        description="Where packages are kept, by default in `function_storage_path`: a bucket of an S3-compatible "
        "service, `s3://BUCKET/PREFIX?endpoint=URL&region=NAME&credentials=FILE`, of which all but the bucket may be "
        "left out. Keys come from `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, the file, or the machine's role.",
    )
    toolchains_path: tuple[Path, ...] | None = Field(
        None,
        description="Folders of toolchains, which are looked for there before `PATH`; by default `toolchains` in "
        "`function_storage_path`.",
    )
    runtimes_path: Path | None = Field(
        None, description="Folder of runtimes of your own, besides those that come with Martlet."
    )
    logging_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least level logged."
    )
    logging_format: Literal["auto", "json", "text"] = Field(
        "auto",
        description="`json` for machines, `text` for people; `auto` asks whether stderr is a terminal.",
    )

    default_mode: ExecutionMode = Field(
        ExecutionMode.PROCESS, description="Rung of functions that name none."
    )
    process_isolation_level: Literal["strict", "relaxed"] = Field(
        "strict",
        description="`strict` refuses to run where a guarantee of the process sandbox cannot be had; `relaxed` runs "
        "with what there is and says so.",
    )
    default_network: Network | None = Field(
        None,
        description="Network of functions that name none; by default `egress` where this machine can give it, else "
        "`none`. A function keeps what it got when it was deployed.",
    )
    allow_host_network: bool = Field(
        False, description="Allow `network: host`: such a function reaches all that this machine reaches."
    )
    egress_subnet: IPv4Network = Field(
        IPv4Network("198.18.0.0/16"),
        description="Addresses of functions with `network: egress` inside of this machine, from /12 to /20; nothing "
        "that functions are to reach may have one of them.",
    )
    quick_cgroups: bool = Field(
        True,
        description="As root, let processes of this machine move between cgroups without waiting (the mount option "
        "`favordynmods`): a cold start without a ready cell takes that several times.",
    )
    disable_container: bool = Field(False, description="Refuse functions with `execution_mode: container`.")
    container_runtime: Literal["auto", "crun", "runc", "runsc", "docker", "podman"] = Field(
        "auto",
        description="What starts containers: `crun`, `runc`, `runsc` (gVisor: a kernel of its own for each), "
        "`docker` or `podman` (by their API), or `auto`: the first but runsc that does on this machine.",
    )
    container_label: Literal["auto", "none"] = Field(
        "auto",
        description="What confines containers of `crun`, `runc` and `runsc` besides: `auto` takes the profile of "
        "AppArmor or the context of SELinux that this machine has for containers, if they start under it; `none` "
        "takes neither. `docker` and `podman` do as they are configured.",
    )
    disable_microvm: bool = Field(False, description="Refuse functions with `execution_mode: microvm`.")
    microvm_path: Path | None = Field(
        None,
        description="Folder for kernels, guests and saved machines of microVMs; several platforms of a machine may "
        "have the same. By default it is in `function_storage_path`.",
    )
    base_image: str = Field(
        "host",
        pattern=BASE_IMAGE,
        description="What containers have as their root: `host` (the system folders of this machine, read-only), "
        "`debian` (a small Debian made for each runtime), the name of an image, the path of an OCI archive or folder "
        "(absolute, or from `./`), or `docker://NAME`, `podman://NAME` for an image of an engine of this machine.",
    )

    max_concurrent_functions: int = Field(
        1000, ge=1, description="Instances and templates this machine may hold at once."
    )
    cold_start_timeout: float = Field(30, gt=0, description="Seconds an instance may take to become ready.")
    keep_alive: Literal["fixed", "learned"] = Field(
        "fixed",
        description="When idle instances go: `fixed` after `warm_instance_ttl`; `learned` when no call is due by the "
        "function's own history, which also brings them back ahead of the next one. `idle_ttl` of a function goes "
        "before either.",
    )
    warm_instance_ttl: float = Field(
        600,
        ge=0,
        description="Seconds an idle instance is kept; with `keep_alive: learned`, where nothing is known better.",
    )
    autoscale_window: float = Field(
        60,
        ge=10,
        le=3600,
        description="On several machines: seconds over which the calls of a function are averaged, to have instances "
        "ready for them and to let these go again.",
    )
    autoscale_panic_window: float = Field(
        6,
        ge=3,
        le=600,
        description="Seconds over which twice as many calls as instances take count at once.",
    )
    autoscale_utilization: float = Field(
        0.7, gt=0, le=1, description="How much of the `concurrency` of instances is to be in use, of 1."
    )
    autoscale_up: float = Field(
        10,
        gt=1,
        le=1000,
        description="By how many times the instances that are expected to be needed may rise within a panic window.",
    )
    autoscale_down: float = Field(2, gt=1, le=1000, description="By how many times they may fall within one.")
    drain_timeout: float = Field(
        60,
        ge=0,
        description="Seconds an old instance may finish what it runs; likewise a machine of a cluster that is told to "
        "stop (SIGTERM).",
    )
    stop_notice: float = Field(
        5,
        ge=0,
        le=600,
        description="Seconds for which a machine of a cluster that is told to stop (SIGTERM) still takes requests, "
        "while `/ready` is 503: what load balancers and other machines need to see it.",
    )
    min_cells: int = Field(
        4,
        ge=0,
        le=1000,
        description="Ready cells each lane keeps per runtime and network, even when none are wanted.",
    )
    max_cells: int = Field(
        16,
        ge=0,
        le=1000,
        description="Ready cells each lane keeps per runtime and network after a burst, as many as were wanted in ten "
        "seconds; `min_cells` if that is more. None are made while less than a tenth of the memory is available.",
    )

    max_body: Bytes = Field(20 * MiB, ge=1024, description="Largest request body; more is answered 413.")
    max_header: Bytes = Field(
        32 * 1024, ge=1024, description="Largest request head (line and headers together)."
    )
    header_timeout: float = Field(10, gt=0, description="Seconds a client may take to send a request head.")
    body_timeout: float = Field(30, gt=0, description="Seconds a client may be silent inside a request body.")
    keep_alive_timeout: float = Field(75, gt=0, description="Seconds an idle client connection is kept.")
    max_connections: int = Field(8192, ge=1, description="Client connections each lane holds at once.")
    rate_limit_per_client: Rate = Field(
        EventRate(1000, 60), description="Requests per client address; keys marked trusted are not limited."
    )
    wrong_keys_per_client: Rate = Field(
        EventRate(60, 60), description="Wrong keys one client address may try; then it is answered 429."
    )

    async_queue: int = Field(
        10_000,
        ge=1,
        description="Asynchronous invocations of a function that may wait or run; then 429 is answered.",
    )
    async_max_body: Bytes = Field(
        MiB,
        ge=1024,
        le=64 * MiB,
        description="Largest body of an asynchronous invocation (more is answered 413), and of an answer that is kept.",
    )
    async_attempts: int = Field(
        5, ge=1, le=100, description="Times an asynchronous invocation is tried before it is a dead letter."
    )
    async_retry: float = Field(
        1,
        gt=0,
        le=3600,
        description="Seconds until an asynchronous invocation that failed is tried again; four times as long after "
        "each further attempt, up to an hour.",
    )
    async_kept: float = Field(
        3600, gt=0, description="Seconds for which the outcome of an asynchronous invocation is kept."
    )

    log_bytes_per_function: Bytes = Field(
        5 * MiB, ge=64 * 1024, description="Log kept per function and lane."
    )
    log_bytes_per_invocation: Bytes = Field(64 * 1024, ge=1024, description="Log kept of one invocation.")
    log_store: BucketText | None = Field(
        None,
        description="Where logs and finished invocations are put aside too, so that they outlive the machine: a bucket "
        "as in `blobs`, with a prefix of its own. By default they are in `function_storage_path` only.",
    )
    invocations_kept: int = Field(
        100, ge=0, le=10_000, description="Finished invocations remembered per function."
    )
    revisions_kept: int = Field(10, ge=1, le=1000, description="Revisions kept per function for rollback.")

    build_timeout: float = Field(600, gt=0, description="Seconds a build may take.")
    max_builds: int = Field(2, ge=1, description="Builds that run at once.")
    build_memory: Bytes = Field(
        2048 * MiB, ge=64 * MiB, description="Memory of a build, with what lies in its `/tmp`."
    )
    build_disk: Bytes = Field(
        4096 * MiB, ge=MiB, description="What a build may have on disk: source, output and cache together."
    )
    build_cache: Bytes = Field(
        8192 * MiB, ge=0, description="What builds keep on disk for the next one, of all functions together."
    )
    build_prepared_path: Path | None = Field(
        None,
        description="Folder for what all builds of a runtime have in common, a compiled standard library, say; several "
        "platforms of a machine may have the same. By default it is in `function_storage_path`.",
    )
    build_network: Network | None = Field(
        None,
        description="Network of builds that need one: `egress`, `host` (all that this machine reaches) or `none`; by "
        "default `egress` where this machine can give it, else `none`.",
    )
    build_environment: dict[str, str] = Field(
        {}, description="Variables that every build sees (addresses of registries, say)."
    )
    build_folders: tuple[Path, ...] = Field(
        (), description="Files and folders that every build sees, read-only, at their own path."
    )
    max_package: Bytes = Field(256 * MiB, ge=MiB, description="Largest unpacked package.")
    max_package_files: int = Field(20_000, ge=1, description="Most files in a package.")
    max_image: Bytes = Field(
        8192 * MiB, ge=MiB, description="Largest image: the archive that is sent, and what its files hold."
    )
    package_cache: Bytes = Field(
        4096 * MiB, ge=0, description="Unpacked packages kept on disk, besides those in use."
    )

    @field_validator("logging_level", mode="before")
    @classmethod
    def _level_in_capitals(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @field_validator("roles", mode="before")
    @classmethod
    def _roles_as_words(cls, value: Any) -> Any:
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, list | tuple):
            return value
        names = [word.strip() if isinstance(word, str) else word for word in words]
        known = ("all", *Role)
        for name in names:
            if name not in known:
                raise ValueError(
                    f"{name!r} is no role: write {', '.join(known)}, or some with commas between them"
                )
        return tuple(role for role in Role if role in names or "all" in names)

    @field_validator("egress_subnet")
    @classmethod
    def _egress_subnet_has_room(cls, value: IPv4Network) -> IPv4Network:
        if not 12 <= value.prefixlen <= 20:
            raise ValueError(f"{value} is too large or too small: take a network from /12 to /20")
        return value

    @model_validator(mode="after")
    def _default_network_is_allowed(self) -> SystemSettings:
        if self.default_network is Network.HOST and not self.allow_host_network:
            raise ValueError("default_network: host takes allow_host_network: true")
        return self

    @model_validator(mode="after")
    def _other_machines_share_the_store(self) -> SystemSettings:
        missing = [role for role in Role if role not in self.roles]
        if missing and self.store == SQLITE:
            raise ValueError(
                f"roles: no machine would be {' or '.join(missing)}: name all roles, or a store that other machines "
                "share (store: etcd://…)"
            )
        if Role.GATEWAY not in self.roles and self.peer_address is None:
            raise ValueError("roles: what is no gateway is reached by other machines only: set peer_address")
        return self

    @property
    def clustered(self) -> bool:
        """Whether this machine and others send each other requests."""
        return self.peer_address is not None or len(self.roles) < len(Role)

    @property
    def toolchain_folders(self) -> tuple[Path, ...]:
        """The folders of toolchains, absolute."""
        folders = self.toolchains_path
        if folders is None:
            folders = (self.function_storage_path / "toolchains",)
        return tuple(folder.absolute() for folder in folders)

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the platform."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class DeclaredFunction(FunctionConfig):
    """A function under ``functions:``: its configuration and, where the code is not inline, where it is."""

    path: Path | None = Field(
        None, description="File or folder with the code, relative to the configuration file."
    )
    code: str | None = Field(None, description="The code itself, for functions of one file.")

    @property
    def config(self) -> FunctionConfig:
        """The configuration without the code."""
        return FunctionConfig.model_validate(self.model_dump(exclude={"path", "code"}, exclude_unset=True))


class Settings(Frozen):
    """All of the configuration, validated."""

    system: SystemSettings = Field(default_factory=SystemSettings)
    functions: dict[FunctionName, DeclaredFunction] = Field(default_factory=dict)

    @property
    def run_directory(self) -> Path:
        """Short-lived files (sockets, FIFOs) of the platform whose data is in this storage path; short, because a
        unix socket's path has at most 107 bytes."""
        name = blake2b(str(self.system.function_storage_path.absolute()).encode(), digest_size=4).hexdigest()
        return runtime_path() / name

    def reveal(self) -> str:
        """Returns them as JSON with the password of the store, which is masked in every other dump."""
        return self.model_dump_json(context=REVEAL)

    @property
    def lane_count(self) -> int:
        """How many lanes to run; where neither requests nor functions are for them, one that other processes ask."""
        if {Role.GATEWAY, Role.NODE}.isdisjoint(self.system.roles):
            return 1
        return self.system.lanes or len(os.sched_getaffinity(0))
