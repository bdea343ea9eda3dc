"""An ordinary HTTP server that turns on the warden which started it, and on what it is shown; run as a program."""

import contextlib
import http.server
import json
import os
import resource
import signal
import time

from attempts import libc, refusal, system_call

INHERITED = sorted(os.listdir("/proc/self/fd"), key=int)[:-1]  # the last is that of the listing
WARDEN = 1
PR_GET_SECCOMP, PR_GET_NO_NEW_PRIVS = 21, 39


def inherited():
    """The descriptors that it was started with."""
    return INHERITED


def powers():
    """What the kernel says of its rights."""
    with open("/proc/self/status") as status:
        fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
    return {
        **{name: fields[name] for name in ("CapEff", "CapPrm", "CapBnd")},
        "no new privileges": libc.prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
        "filters": libc.prctl(PR_GET_SECCOMP, 0, 0, 0, 0),
    }


def open_warden():
    """How it is refused what the kernel shows of the warden's inside; of a descriptor that it opens, the name."""
    names = ("mem", "environ", "maps", "fd", "cwd", "root", "map_files", "auxv")
    said = {}
    for name in names:
        path = f"/proc/{WARDEN}/{name}"
        said[name] = refusal(os.readlink if name in ("cwd", "root") else open, path)
    said["fd/"] = refusal(os.listdir, f"/proc/{WARDEN}/fd")
    for number in (3, 4, 5, 6):
        path = f"/proc/{WARDEN}/fd/{number}"
        said[f"fd/{number}"] = refusal(os.open, path, os.O_RDWR) or os.readlink(path)
    return said


def trace_warden():
    """How it is refused to attach to the warden."""
    attach, seize = 16, 0x4206
    return {
        "attach": refusal(system_call, "ptrace", attach, WARDEN, 0, 0),
        "seize": refusal(system_call, "ptrace", seize, WARDEN, 0, 0),
        "memory": refusal(system_call, "process_vm_readv", WARDEN, 0, 0, 0, 0, 0),
        "descriptor": refusal(system_call, "pidfd_getfd", 3, 0, 0),
    }


def strike_warden():
    """Sends it what nobody can catch; a first process takes none of it from inside."""
    for number in (signal.SIGKILL, signal.SIGSTOP):
        os.kill(WARDEN, number)
    return "struck"


def write(*folders):
    """How it is refused to make a file in each of these folders."""
    return {folder: refusal(open, f"{folder}/mine", "x") for folder in folders}


def seen(*paths):
    """Which of these paths there are."""
    return [path for path in paths if os.path.lexists(path)]


def listing(folder):
    """What lies in a folder, if there is one."""
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def raise_limits():
    """Which limits it can raise above what it was given."""
    raised = []
    for name in ("RLIMIT_NOFILE", "RLIMIT_NPROC", "RLIMIT_FSIZE", "RLIMIT_CORE", "RLIMIT_MEMLOCK"):
        kind = getattr(resource, name)
        _, hard = resource.getrlimit(kind)
        if hard == resource.RLIM_INFINITY:
            raised.append(name)
            continue
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(kind, (hard + 1, hard + 1))
            raised.append(name)
    return raised


def fork_many(most):
    """How many children it can have at a time."""
    children = []
    try:
        while len(children) < most:
            pid = os.fork()
            if pid == 0:
                time.sleep(600)
                os._exit(0)
            children.append(pid)
    except OSError:
        pass
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(children)


def hog():
    """Takes more memory than it may have."""
    return len(bytearray(os.urandom(1 << 20) * 512))


def leave_and_die():
    """Ends with a child in a session of its own, that wants to live on."""
    if os.fork() == 0:
        os.setsid()
        os.closerange(0, 4096)
        time.sleep(600)
    os._exit(0)


class Handler(http.server.BaseHTTPRequestHandler):
    """Makes the attempt that the request names."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        document = json.loads(self.rfile.read(int(self.headers["content-length"])))
        outcome = globals()[document["attempt"]](*document["arguments"])
        body = json.dumps({"outcome": outcome}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
