"""Which runtimes a description makes on this machine: one for each version of its toolchain that is found."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from martlet.model import Frozen
from martlet.runtimes.description import PLACEHOLDER, PROGRAM, Description, Program, Toolchain
from martlet.runtimes.interpreter import INTERPRETER
from martlet.runtimes.places import Places, is_broad, shown_for
from martlet.runtimes.runtime import Runtime
from martlet.runtimes.versions import Question, Versions


class Absent(Frozen):
    """A language that this machine has no runtime of.

    Attributes:
        name: the language.
        title: what people call it.
        reason: what is missing, as one sentence without its full stop.
        remedy: how to install it, likewise; None where no way is known.
    """

    name: str
    title: str
    reason: str
    remedy: str | None = None


def remedy(programs: Iterable[Program]) -> str | None:
    """Returns how programs are installed, as one sentence; None where no way is known."""
    needed = list(programs)
    packages = " ".join(dict.fromkeys(package for program in needed for package in program.debian))
    ways = [f"apt-get install {packages}"] if packages else []
    return "; or ".join([*ways, *(program.hint for program in needed if program.hint)]) or None


class Discovery:
    """Finds toolchains.

    Args:
        places: where programs are.
        versions: asks them which they are.
        private: folders that no function may see.
    """

    def __init__(self, places: Places, versions: Versions, private: Iterable[Path]) -> None:
        self._places = places
        self._versions = versions
        self._private = tuple(private)

    def find(self, described: Sequence[tuple[Path, Description]]) -> Iterator[Runtime | Absent]:
        """Yields the runtimes that each description (with its folder) makes, the newest first, or why it makes none."""
        programs = {
            description.name: self._places.find(description.toolchain.programs)
            for _, description in described
            if description.toolchain is not None
        }
        questions = {
            _question(description.toolchain, program)
            for _, description in described
            if description.toolchain is not None
            for program in programs[description.name]
        }
        answers = self._versions.ask(questions)
        for folder, description in described:
            toolchain = description.toolchain
            if toolchain is None:
                yield _versionless(description, folder)
                continue
            versions = {
                program: answers.get(_question(toolchain, program)) for program in programs[description.name]
            }
            yield from self._runtimes(description, toolchain, folder, versions)

    def _runtimes(
        self,
        description: Description,
        toolchain: Toolchain,
        folder: Path,
        versions: Mapping[Path, str | None],
    ) -> Iterator[Runtime | Absent]:
        found: dict[str, Runtime] = {}
        unfit = _Unfit(f"there is no {_names(toolchain)} in {self._places}", toolchain)
        for program, version in sorted(versions.items(), key=lambda each: _numbers(each[1]), reverse=True):
            try:
                runtime = self._runtime(description, toolchain, folder, program, version)
                found.setdefault(runtime.name, runtime)
            except _Unfit as error:
                unfit = error
        if found:
            yield from _named(found.values())
        else:
            yield Absent(
                name=description.name,
                title=description.title,
                reason=unfit.reason,
                remedy=remedy([unfit.needs]),
            )

    def _runtime(
        self, description: Description, toolchain: Toolchain, folder: Path, program: Path, version: str | None
    ) -> Runtime:
        if version is None:
            asked = " ".join(_question(toolchain, program))
            raise _Unfit(f"{asked} does not say a version", toolchain)
        if toolchain.least is not None and _numbers(version) < _numbers(toolchain.least):
            raise _Unfit(f"{program} is version {version}, and {toolchain.least} is the least", toolchain)
        shown, programs, lacks = [*self._shown(program, toolchain)], {}, []
        shown_to_builds: list[Path] = []
        for also in toolchain.also:
            beside = self._places.find(also.programs, beside=program)
            if beside:
                programs[also.key] = beside[0]
                (shown if also.purpose == "runs" else shown_to_builds).extend(self._shown(beside[0], also))
            elif also.purpose == "builds":
                lacks.append(also)
            else:
                raise _Unfit(f"there is {program}, but no {_names(also)} in {self._places}", also)
        exact = description.name + ".".join(version.split(".")[: description.version_parts])
        return Runtime(
            name=exact,
            names=(exact,),
            version=version,
            folder=folder,
            program=program,
            programs=programs,
            lacks=tuple(lacks),
            shown=tuple(dict.fromkeys(shown)),
            shown_to_builds=tuple(dict.fromkeys([*shown, *shown_to_builds])),
            description=description,
        )

    def _shown(self, program: Path, description: Program) -> Iterator[Path]:
        shown = shown_for(program, description.shows)
        if shown is not None and is_broad(shown, self._private):
            raise _Unfit(
                f"functions would see all of {shown}, where {program} is: put it into a folder of its own",
                description,
            )
        if shown is not None:
            yield shown
        for pattern in description.etc:
            yield from (path for path in sorted(Path("/etc").glob(pattern)) if path.is_dir())


class _Unfit(Exception):
    def __init__(self, reason: str, needs: Program) -> None:
        super().__init__(reason)
        self.reason = reason
        self.needs = needs


def _versionless(description: Description, folder: Path) -> Runtime:
    name = description.name
    return Runtime(name=name, names=(name,), version="", folder=folder, description=description)


def _named(newest_first: Iterable[Runtime]) -> Iterator[Runtime]:
    """Gives each runtime of a language the names that no newer one answers to."""
    taken: set[str] = set()
    for runtime in newest_first:
        description = runtime.description
        numbers = runtime.version.split(".")
        names = [
            description.name + ".".join(numbers[:count]) for count in range(description.version_parts + 1)
        ]
        free = tuple(name for name in dict.fromkeys(names) if name not in taken)
        taken.update(free)
        yield runtime.model_copy(update={"names": free})


def _question(toolchain: Toolchain, program: Path) -> Question:
    filled = {PROGRAM: str(program), "interpreter": str(INTERPRETER)}
    return tuple(PLACEHOLDER.sub(lambda found: filled[found[1]], word) for word in toolchain.version)


def _numbers(version: str | None) -> tuple[int, ...]:
    return tuple(int(number) for number in version.split(".")) if version is not None else ()


def _names(program: Program) -> str:
    return " or ".join(program.programs)
