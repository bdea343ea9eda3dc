"""The Python shim: what runs people's Python functions, inside their sandbox.

It speaks the instance contract of ``docs/design.md`` over one listening socket and needs the standard library only. A
process that is to be forked from imports it and calls `warm`; each fork calls `serve`. One that is a cell itself and
need not be warm calls `prepare` before that. In a clone of a machine, which translates all code anew, the process that
is forked from calls `practise`; `EXAMPLE` is a function to practise with. Everything is imported here, so that nothing
is read from this folder later, when the sandbox no longer shows it. The name is one that no user's module will have.

    life ─ reception ─ internal   health, being given code
      │
    cell                          what is specialised
      ├── template ─ forkable     loaded code that instances are forked from
      └── instance                process → loader → contracts
            ├── blocking ─ handle, wsgi
            └── evented ─ handle, asgi ─ lifespan, websocket ─ frames
                  all on http1, request, response, failures, logs
"""

from .life import prepare, serve, stand_by, warm
from .warmth import EXAMPLE, practise

__all__ = ["EXAMPLE", "practise", "prepare", "serve", "stand_by", "warm"]
