"""What the host holds for any sandbox, whatever has started it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from martlet.drivers.driver import Handle
from martlet.http.conversation import Conversation
from martlet.sandbox.cgroups import Usage

SOCKET, LOG = "sock", "log"


class Held(ABC):
    """A cell, or the instance it became.

    Attributes:
        driver: the name of whose it is.
        id: what the node calls it.
        runtime: the name of its runtime.
        directory: its own, with socket and log.
        socket: the path that it takes requests at. As text, as is that of the log: to put paths together is a good
            part of what a lane does for a start.
        identity: its user and group id.
        image: the one that its function is, where it is one.
        pid: its first process, once it is started.
        in_service: whether its end would be news: it has been handed out and nobody has asked to end it.
        ended: done with the exit code once it is over.
        removal: what removes it.
        conversation: with who has answered for its health, and may be given the code.
    """

    def __init__(
        self,
        driver: str,
        id: str,  # noqa: A002
        runtime: str,
        directory: Path,
        identity: int,
        image: str | None,
    ) -> None:
        self.driver, self.id, self.runtime, self.directory = driver, id, runtime, directory
        self.socket, self._log = f"{directory}/{SOCKET}", f"{directory}/{LOG}"
        self.identity, self.image = identity, image
        self.pid: int | None = None
        self.in_service = False
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.removal: asyncio.Task[None] | None = None
        self.conversation: Conversation | None = None

    @property
    def handle(self) -> Handle:
        """The cell as the node knows it."""
        return Handle(
            id=self.id,
            driver=self.driver,
            runtime=self.runtime,
            socket=self.socket,
            log=self._log,
            pid=self.pid,
            state=self.state,
        )

    @property
    def state(self) -> dict[str, Any]:
        """What else its driver needs to find it again."""
        return {"identity": self.identity} | ({} if self.image is None else {"image": self.image})

    @property
    def over(self) -> bool:
        """Whether it was there and is gone."""
        return self.ended.done()

    def end_conversation(self) -> None:
        """Closes the connection over which it was greeted, if that is still here."""
        if self.conversation is not None:
            self.conversation.close()
            self.conversation = None

    @abstractmethod
    def usage(self) -> Usage | None:
        """Returns what it uses; None where that is not to be known."""
