"""MicroVMs: a guest that Martlet builds, what runs it, and how requests get in.

`kernel`, `base`, `guest`, `store`, `templates`, `agent`, `resident`, `practice`, `memory`, `view`, `links` and
`instructions` suit every machine monitor, and `machines` is what a warden has of one; `qemu`, `qmp`, `booting` and
`qemu_machine` are for QEMU, `fork_server`, `rehearsal`, `forerunner`, `capture`, `orders` and `forked_machine` for a
QEMU that is forked, and `firecracker` speaks Firecracker's API.
`warden`, `agent` and what they import run in a bare interpreter: they take the standard library and `martlet.sandbox`
only.
"""
