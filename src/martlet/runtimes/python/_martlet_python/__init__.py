"""The Python shim: what runs people's Python functions, inside their sandbox.

It speaks the instance contract of ``docs/design.md`` over one listening socket and needs the standard library only. A
process that is to be forked from imports it and calls `warm`; each fork calls `serve`. In a clone of a machine, which
translates all code anew, that process calls `practise`. Everything is imported here, so that nothing is read from this
folder later, when the sandbox no longer shows it. The name is one that no user's module will have.

    cell ─ internal              health, being specialised
      ├── template ─ forkable    loaded code that instances are forked from
      └── instance               process → loader → contracts
            ├── blocking ─ handle, wsgi
            └── evented ─ handle, asgi ─ lifespan, websocket ─ frames
                  all on http1, request, response, failures, logs
"""

from .cell import serve
from .warmth import practise, warm

__all__ = ["practise", "serve", "warm"]
