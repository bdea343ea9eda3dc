"""Functions that are images: what their containers see, and what is started in them.

What a container starts as is the platform's (`martlet.sandbox.inside`), by an `Interpreter` that it brings along: an
image may have nothing but one static program. It is the warden of the image's program, as it is that of servers in a
package.
"""

from __future__ import annotations

import os
from pathlib import Path
from threading import Lock
from typing import Any

from martlet.drivers.driver import LoadFailed
from martlet.drivers.frames import NO_LABELS, options
from martlet.drivers.interpreter import ENVIRONMENT, PLACE, Interpreter
from martlet.drivers.mandatory import Labels
from martlet.drivers.roots import make_places, open_to_all
from martlet.drivers.startup import WARDEN, WARDEN_FOLDER
from martlet.errors import MartletError
from martlet.images.image import Image, ImageConfig
from martlet.images.store import Hold, Images
from martlet.model import FunctionConfig
from martlet.runtimes.runtime import RUNTIMES, SHIPPED
from martlet.sandbox import root
from martlet.sandbox.bundle import CODE, DOOR, SANDBOX, Frame
from martlet.sandbox.inside import Task
from martlet.sandbox.program import Program
from martlet.units import format_bytes

PROGRAM = "program"
"""The member of the request to specialise that says what is started."""
FUNCTION, DEPENDENCIES = f"{CODE}/function", f"{CODE}/dependencies"
"""Where an image sees what was deployed with it: it may have folders of its own that are called otherwise."""
_USUAL = FunctionConfig().handler
_USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LONGEST = 256 * 1024
_HOSTS, _RESOLVERS, _PRELOAD = "/etc/hosts", "/etc/resolv.conf", "/etc/ld.so.preload"
_NOTHING = "nothing"
"""The empty file, in the folder of what images are shown."""
_FOLDERS = (CODE, DOOR, SANDBOX, RUNTIMES, PLACE, root.SCRATCH, "/proc", "/dev", "/etc")


class OwnImages:
    """See the module.

    Args:
        images: the folder of those of this machine.
        folder: where it makes files that containers are shown.
        user: who holds images, for people (``lane-0``).
        own_kernel: as in `Task`.
        labels: what AppArmor or SELinux confines containers by.
    """

    def __init__(
        self,
        images: Path,
        folder: Path,
        user: str,
        *,
        own_kernel: bool = False,
        labels: Labels = NO_LABELS,
    ) -> None:
        self._folder = folder
        self._user = user
        self._own_kernel = own_kernel
        self._labels = labels
        self._at = images
        self._lock = Lock()
        self._images: Images | None = None
        self._interpreter: Interpreter | None = None
        self._taken: dict[str, tuple[Image, Hold]] = {}

    def take(self, cell: str, reference: str) -> Image:
        """Returns the image of a cell, which nobody can remove until `let_go`; harmless when that was asked before.

        May wait for the disk.

        Raises:
            LoadFailed: there is none.
        """
        if cell in self._taken:
            return self._taken[cell][0]
        if self._images is None:
            self._images = Images(self._at)
        try:
            image = self._images.find(reference)
            self._taken[cell] = image, self._images.hold(image, self._user)
        except MartletError as error:
            raise LoadFailed("NoImage", error.detail) from None
        return image

    def let_go(self, cell: str) -> None:
        """Lets go of the image of a cell that has ended; harmless where it has none."""
        taken = self._taken.pop(cell, None)
        if taken is not None:
            taken[1].close()

    def frame(self, image: Image) -> Frame:
        """Returns what a container of an image is, and gives the image's root the places for it. May wait for the disk.

        Raises:
            DriverError: the machine's interpreter cannot be shown there.
            OSError: the root cannot be changed.
        """
        interpreter = self._furnished()
        make_places(image.root, _FOLDERS, [_HOSTS, _RESOLVERS])
        binds = {}
        if os.path.lexists(_inside(image.root, _PRELOAD)):
            make_places(image.root, [], [_PRELOAD])
            # Else the platform's interpreter would load what it names.
            binds[_PRELOAD] = str(self._folder / _NOTHING)
        seen = f"{RUNTIMES}/{WARDEN_FOLDER.name}"
        task = Task(WARDEN, seen, Program((), {}, "cold", "port"), self._own_kernel)
        return Frame(
            root=str(image.root),
            binds={**interpreter.binds, RUNTIMES: str(SHIPPED), **binds},
            command=[*interpreter.command, *options(task)],
            profile=self._labels.profile,
            process_label=self._labels.process,
            file_label=self._labels.files,
            environment=ENVIRONMENT,
        )

    def program(self, cell: str, config: FunctionConfig) -> dict[str, Any]:
        """Returns what is started of the image of a cell, as the warden takes it.

        Raises:
            LoadFailed: it says nothing that could be started.
        """
        return _program(self._taken[cell][0].config, config)

    def _furnished(self) -> Interpreter:
        """Returns the interpreter of images, having made what they are shown."""
        with self._lock:
            if self._interpreter is None:
                names = [WARDEN, Task.__module__]
                interpreter = Interpreter.make(self._folder / "interpreter", WARDEN_FOLDER, names)
                (self._folder / _NOTHING).touch()
                open_to_all(self._folder)
                self._interpreter = interpreter
            return self._interpreter


def _program(image: ImageConfig, config: FunctionConfig) -> dict[str, Any]:
    command = [*image.entrypoint, *image.command] if config.handler == _USUAL else [config.handler]
    if not command:
        raise LoadFailed(
            "NoProgram",
            "the image names no program (Entrypoint, Cmd): name one in it as config.handler, or build it with one",
        )
    environment = {"PATH": _USUAL_PATH, **image.environment}
    size = sum(map(len, (*command, *environment, *environment.values())))
    if size > _LONGEST:
        raise LoadFailed(
            "TooLarge",
            f"the variables and the command of the image are over {format_bytes(_LONGEST)}: build it with fewer",
        )
    return {"command": command, "environment": environment, "folder": image.folder or "/"}


def explained(error: LoadFailed) -> LoadFailed:
    """Returns what is said of an image whose program did not come to serve."""
    said = str(error).removeprefix(f"{error.kind}: ")
    if error.kind == "NotStarted":
        what_to_do = (
            "It must be in the image, and so must its folder and what it takes (an interpreter, a loader); "
            "config.handler names another program"
        )
        return LoadFailed(error.kind, f"{said}. {what_to_do}")
    if error.kind == "Crashed":
        what_to_do = (
            "Its program must stay, and serve HTTP on the port that $PORT names; what it has printed may say why it "
            "does not"
        )
        return LoadFailed(error.kind, f"the image does not serve: {said}. {what_to_do}")
    return error


def _inside(folder: Path, place: str) -> Path:
    return folder / place.lstrip("/")
