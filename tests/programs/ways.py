"""A program that does by the protocol what its handler names, right or wrong: for tests of the warden."""

import contextlib
import json
import os
import signal
import socket
import sys
import time

ANSWER = {"mode": "handler", "load_ms": 1.5}


def say(answer: object) -> None:
    with open(4, "w") as said:
        said.write(json.dumps(answer) if not isinstance(answer, str) else answer)


def serve(body: bytes = b"served") -> None:
    """Answers each connection once, with what it was asked for by the path, or ``body``."""
    listener = socket.socket(fileno=3)
    while True:
        connection, _ = listener.accept()
        with connection:
            request = connection.recv(65536)
            if request.startswith(b"GET /end "):
                os._exit(3)
            if request.startswith(b"GET /kill "):
                os.kill(os.getpid(), signal.SIGKILL)
            head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)


def talk(specification: dict) -> None:
    """Serves over stdin and stdout; the specification came on descriptor 3."""
    count = 0
    while line := sys.stdin.buffer.readline():
        path, length = line.split()[1], 0
        while (field := sys.stdin.buffer.readline()) != b"\r\n":
            name, _, value = field.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        body = sys.stdin.buffer.read(length)
        count += 1
        if path == b"/end":
            os._exit(3)
        if path == b"/sleep":
            time.sleep(0.5)
        if path == b"/chunks":
            out = b"transfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
        else:
            text = b"%d %d %b" % (os.getpid(), count, body)
            out = b"content-length: %d\r\n\r\n%b" % (len(text), text)
        sys.stdout.buffer.write(b"HTTP/1.1 200 OK\r\n" + out)
        sys.stdout.buffer.flush()


def main() -> None:
    stdio = sys.argv[1:] == ["stdio"]
    with open(3 if stdio else 0, "rb", buffering=0, closefd=False) as told:
        line = b""
        while not line.endswith(b"\n"):
            if not (piece := told.read(1)):
                sys.exit(0)
            line += piece
    specification = json.loads(line)
    os.chdir(specification["code"])
    match specification["handler"]:
        case "talk":
            say(ANSWER)
            talk(specification)
        case "serve":
            say(ANSWER)
            serve()
        case "specification":
            say(ANSWER)
            serve(line)
        case "surroundings":
            descriptors = {}
            for number in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):  # the one by which they are listed
                    descriptors[number] = os.readlink(f"/proc/self/fd/{number}").partition(":")[0]
            say(ANSWER)
            found = {
                "environment": dict(os.environ),
                "descriptors": descriptors,
                "folder": os.getcwd(),
                "parent": os.getppid(),
                "session": os.getsid(0) == os.getpid(),
                "blocked": [*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))],
            }
            serve(json.dumps(found).encode())
        case "silent":
            os.close(4)
            serve()
        case "never":
            time.sleep(600)
        case "garbage":
            say("this is no JSON\n")
        case "endless":
            say("x" * (2 << 20))
        case "untrue":
            say({"mode": ["handler"], "load_ms": "nan"})
        case "infinite":
            say('{"mode": "handler", "load_ms": 1e999}\n')
        case "nested":
            say("[" * 100_000 + "\n")
        case "end":
            sys.exit(7)
        case "killed":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "wrong":
            say({"error": {"type": "SyntaxError", "message": "unexpected end", "traceback": "line 1"}})
        case "orphans":
            say(ANSWER)
            if os.fork() == 0:
                if os.fork() == 0:
                    time.sleep(0.05)
                os._exit(0)
            os.wait()
            serve()
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say(ANSWER)
            serve()
        case "graceful":
            signal.signal(signal.SIGTERM, lambda *_: (print("finished what ran", flush=True), os._exit(0)))
            say(ANSWER)
            serve()


main()
