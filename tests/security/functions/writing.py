"""Writes where it has nothing to write."""

import os

from attempts import handle as handle
from attempts import refusal


def _append(path):
    with open(path, "ab") as file:
        file.write(b"x")


def write(*paths):
    """Writes a file, or a new one in a folder; returns how each attempt was refused."""
    return {path: refusal(_append, f"{path}/new" if os.path.isdir(path) else path) for path in paths}


def cut(*paths):
    """Cuts files short without opening them."""
    return {path: refusal(os.truncate, path, 0) for path in paths}


def change(path):
    """Changes what there is about a path without writing into it."""
    actions = {
        "remove": lambda: os.rmdir(path) if os.path.isdir(path) else os.unlink(path),
        "rename": lambda: os.rename(path, f"{path}-other"),
        "chmod": lambda: os.chmod(path, 0o777),
        "chown": lambda: os.chown(path, os.geteuid(), os.getegid()),
        "touch": lambda: os.utime(path, (0, 0)),
        "label": lambda: os.setxattr(path, "user.x", b"x"),
        "replace by a link": lambda: os.symlink("/tmp", f"{path}/link"),
    }
    return {name: refusal(action) for name, action in actions.items()}


def link(*paths):
    """Links files of the system into its scratch space, to write to them there."""
    return {path: refusal(os.link, path, f"/tmp/{os.path.basename(path)}") for path in paths}


def reopen():
    """Opens what it was given for reading again for writing, by its descriptor."""
    descriptor = os.open("/function/handler.py", os.O_RDONLY)
    return refusal(os.open, f"/proc/self/fd/{descriptor}", os.O_WRONLY)


def writable_folders():
    """Every folder that it can make a file in."""
    found = []
    for folder, folders, _ in os.walk("/"):
        deep_in_the_system = folder.count("/") > 2 and not folder.startswith(("/function", "/dependencies"))
        if folder == "/proc" or deep_in_the_system or os.path.realpath(folder).startswith("/tmp"):
            folders.clear()
        path = f"{folder}/.attempt"
        if refusal(_append, path) is None:
            os.unlink(path)
            found.append(folder)
    return found


def _write_back(path):
    with open(path, "rb+", buffering=0) as file:
        file.write(file.read())


def writable_settings():
    """Every setting of the kernel that it can write, with the value that it has."""
    settings = [f"{folder}/{name}" for folder, _, names in os.walk("/proc/sys") for name in names]
    return [path for path in settings if refusal(_write_back, path) is None]


def litter():
    """Leaves files, folders and links in its scratch space."""
    os.makedirs("/tmp/folder/below", exist_ok=True)
    for name in ("file", "folder/file", ".hidden"):
        _append(f"/tmp/{name}")
    return sorted(os.listdir("/tmp"))
