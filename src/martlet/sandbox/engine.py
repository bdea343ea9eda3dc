"""The programs that start a container from an OCI bundle, and in what they differ."""

from __future__ import annotations

from dataclasses import dataclass

from martlet.sandbox import network

STATE, BUNDLE, LOG, PID = "state", "bundle", "engine.log", "pid"


@dataclass(frozen=True, slots=True)
class Engine:
    """One of them.

    Attributes:
        name: of its program.
        options: what it is always called with.
        networks: what it is called with besides, by the name of the network.
        makes_cgroups: whether it makes a container's cgroup itself, in every tree, instead of staying where it is.
        one_hierarchy: whether it works only where it does not see both kinds of cgroup trees.
        own_kernel: whether containers have a kernel of their own, a process of the host with many threads.
        memory: bytes that this takes beside what functions use.
        processes: threads that it takes.
    """

    name: str
    options: tuple[str, ...] = ()
    networks: tuple[tuple[str, str], ...] = ()
    makes_cgroups: bool = False
    one_hierarchy: bool = False
    own_kernel: bool = False
    memory: int = 0
    processes: int = 0

    def run(self, program: str, folder: str, cell: str, net: str) -> list[str]:
        """Returns the command that starts a container and returns once it runs.

        Args:
            program: the path of its program.
            folder: where the keeper keeps what is the container's: `BUNDLE`, `LOG` and `PID` are there.
            cell: the id of the container.
            net: the name of its network.
        """
        own = [option for name, option in self.networks if name == net]
        common = [f"--root={folder}/{STATE}", f"--log={folder}/{LOG}", *self.options, *own]
        place = ["--bundle", f"{folder}/{BUNDLE}", "--pid-file", f"{folder}/{PID}"]
        return [program, *common, "run", "--detach", *place, cell]


CRUN = Engine("crun", ("--cgroup-manager=disabled",), one_hierarchy=True)
RUNC = Engine("runc", makes_cgroups=True)
RUNSC = Engine(
    "runsc",
    ("--platform=systrap", "--host-uds=create", "--ignore-cgroups", "--file-access-mounts=shared"),
    # Its own network would send around the rules of the namespace that it is in.
    networks=(
        (network.NONE, "--network=none"),
        (network.EGRESS, "--network=host"),
        (network.HOST, "--network=host"),
    ),
    own_kernel=True,
    memory=64 * 1024 * 1024,
    processes=512,
)
ENGINES = {engine.name: engine for engine in (CRUN, RUNC, RUNSC)}
