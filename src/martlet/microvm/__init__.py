"""MicroVMs: a guest that Martlet builds, what runs it, and how requests get in.

`kernel`, `guest`, `templates` and `agent` suit every machine monitor; `qemu`, `qmp` and `links` are for QEMU, and
`firecracker` speaks Firecracker's API. `warden`, `agent` and what they import run in a bare interpreter: they take the
standard library and `martlet.sandbox` only.
"""
