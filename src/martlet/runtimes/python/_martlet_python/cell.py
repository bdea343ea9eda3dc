"""A cell: a process without code, that is specialised once, and is an instance or a template from then on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from . import forkable, instance, loader, logs, open_runtimes, process
from .failures import Failure
from .http1 import Parser
from .instance import Instance
from .spec import Spec

Prepare = Callable[[dict[str, Any]], None]
"""Called with the request to specialise, just before user code is loaded: mounts the code and drops privileges. It may
have a method ``practise``, for when nobody waits, and one ``rest`` (`blocking.Rest`) or None."""


class Cell:
    """See the module.

    Args:
        prepare: see `Prepare`.
        files_in: returns what is in the folder of the code.

    Attributes:
        instance: what it became.
        is_template: whether it is there to be forked from, and does not serve itself.
    """

    def __init__(self, prepare: Prepare | None, files_in: Callable[[str], list[str]] = os.listdir) -> None:
        self.instance: Instance | None = None
        self.is_template = False
        self._prepare = prepare
        self._files_in = files_in

    def specialise(self, body: bytes, parser: Parser) -> tuple[int, dict[str, Any]]:
        """Becomes an instance or a template. Returns status and document of the answer."""
        try:
            document = json.loads(body)
            spec = Spec.from_json(document)
            if self._prepare is not None:
                self._prepare(document)
            files = self._files_in(spec.code)
            process.become(spec, files)
            logs.tell_apart(one_at_a_time=spec.concurrency == 1)
        except Exception as error:
            return 500, _error(Failure.of(error))
        before = forkable.descriptors() if spec.template else {}
        started = time.perf_counter()
        try:
            loaded = instance.load(spec, files)
        except BaseException as error:
            failure = loader.explain(error, spec.code)
            failure.log()
            return 422, _error(failure)
        load_ms = round((time.perf_counter() - started) * 1000, 3)
        open_runtimes.startup = load_ms / 1000
        if spec.template:
            logs.end()  # unfinished lines are not the forks'
            if obstacle := forkable.obstacle(spec.code, before):
                return 409, {"error": {"type": "Unforkable", "message": obstacle}}
        self.instance, self.is_template = loaded, spec.template
        parser.max_body = spec.max_body
        return 200, {"mode": loaded.mode, "load_ms": load_ms}


def _error(failure: Failure) -> dict[str, Any]:
    return {"error": failure._asdict()}
