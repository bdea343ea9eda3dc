"""The machines that build: which there are, and which of them can build what."""

from __future__ import annotations

from martlet.errors import Invalid, Unavailable
from martlet.model import Node
from martlet.runtimes import Catalogue
from martlet.runtimes.catalogue import FIELD, RuntimeMissing
from martlet.storage.registry import RegistryView

NO_BUILDER = (
    "no machine with the role builder is alive (see `martlet nodes`): start one with "
    "`martlet serve --role builder`"
)


class Builders:
    """See the module.

    Args:
        view: where the nodes are known.
        catalogue: the runtimes of this machine.
        own: the id of this one.
        here: whether it builds, too.

    Attributes:
        here: likewise.
    """

    def __init__(self, view: RegistryView, catalogue: Catalogue, own: str, here: bool) -> None:
        self.here = here
        self._view = view
        self._catalogue = catalogue
        self._own = own

    def others(self) -> list[Node]:
        """Returns the other machines that build and are not about to stop."""
        return [
            node
            for node in self._view.nodes.values()
            if node.builds is not None and node.id != self._own and not node.stopping
        ]

    def can_build_here(self, name: str) -> bool:
        """Whether this machine builds, and has all that a runtime takes for that."""
        try:
            return self.here and self._catalogue.resolve(name).builds
        except RuntimeMissing:
            return False

    def others_can(self, name: str) -> bool:
        """Whether another machine can build a runtime."""
        return any(_answers(exact, name) for node in self.others() for exact in node.builds or ())

    def is_theirs(self, name: str) -> bool:
        """Whether builds of a runtime are for another machine."""
        if not self.here:
            return True
        return not self.can_build_here(name) and self.others_can(name)

    def resolve(self, name: str) -> str:
        """Returns the exact name of the runtime that answers to a name where it is built: here, if it can be.

        Raises:
            Unavailable: no machine builds.
            Invalid: none has it; the message says which machines there are, and what to install.
        """
        if self.here:
            try:
                return self._catalogue.resolve(name).name
            except RuntimeMissing:
                if not self.others_can(name):
                    if not self.others():
                        raise
                    raise self.lack_of(name) from None
        elif not self.others():
            raise Unavailable(NO_BUILDER)
        fitting = {exact for node in self.others() for exact in node.builds or () if _answers(exact, name)}
        if not fitting:
            raise self.lack_of(name)
        return max(fitting, key=_version)

    def lack_of(self, name: str) -> Invalid:
        """Returns the error that no machine can build a runtime."""
        machines = [f"{node.host} ({node.id})" for node in self.others()]
        if self.here:
            machines.insert(0, f"this one ({self._own})")
        way = self._catalogue.way_to_install(name)
        known = sorted({exact for node in self.others() for exact in node.builds or ()})
        remedy = f"to install it on one of them: {way}" if way else f"they have {', '.join(known) or 'none'}"
        return Invalid(
            f"no machine that builds has all that the runtime {name!r} takes: {', '.join(machines)}; {remedy}",
            field=FIELD,
        )

    def why_waiting(self, runtime: str) -> str:
        """Returns why nobody has taken up a build yet, in a sentence."""
        if not self.here and not self.others():
            return f"waiting: {NO_BUILDER}"
        if runtime and not self.can_build_here(runtime) and not self.others_can(runtime):
            return f"waiting: {self.lack_of(runtime).detail}"
        return "waiting for a machine that builds to take it up"


def _answers(exact: str, name: str) -> bool:
    """Whether a runtime answers to a name: its own, or one with fewer numbers of its version."""
    if not exact.startswith(name):
        return False
    rest = exact[len(name) :]
    return not rest or rest[0] == "." or (rest[0].isdigit() and not name[-1:].isdigit())


def _version(exact: str) -> tuple[int, ...]:
    language = exact.rstrip("0123456789.")
    return tuple(int(number) for number in exact[len(language) :].split(".") if number)
