"""What the shim of Bash brings because Bash has none: requests in pieces that it reads at once, and processes ahead."""

import json
import os
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from martlet import runtimes
from martlet.runtimes.program._martlet_program import exchange, slots, stdio
from martlet.runtimes.program._martlet_program.child import SPECIFICATION, Child

# The package that the warden imports these from, so that they are the same classes.
from _martlet_python.http1 import Disconnected, Head  # isort: skip

BASH = shutil.which("bash") or "bash"
SHIM = Path(runtimes.__file__).resolve().parent / "bash/shim.bash"
SECONDS = 60


class Talk:
    """A shim, asked as the warden does; ``ask`` returns status, head and body of an answer."""

    def __init__(self, child, ends):
        self.child = child
        self.worker = stdio.Worker(child, ends)
        self.freed = 0

    def pieces(self, target="/", method="GET", body=b"", **fields):
        """Returns what is sent, piece by piece."""
        head, sent = Head(f"{method} {target} HTTP/1.1\r\n".encode()), []
        head.fields.update({"x-request-id": "one", **fields})  # whatever HTTP would say of them
        self.worker.answer(head, body, sent.append, self._free)
        return sent

    def _free(self):
        self.freed += 1

    def ask(self, target="/", method="GET", body=b"", **fields):
        freed = self.freed
        head, _, body = b"".join(self.pieces(target, method, body, **fields)).partition(b"\r\n\r\n")
        assert self.freed == freed + 1
        return int(head.split()[1]), head, body


@contextmanager
def shim(folder, code, path="/usr/bin:/bin"):
    """Runs a shim with this code, and programs of ``path``; ends it as the warden does."""
    (folder / "handler.sh").write_text(code)
    ends = slots.Slots()
    environment = {
        "MARTLET_HANDLER": "handle",
        "MARTLET_CODE": str(folder),
        "PATH": path,
        "LANG": "C.UTF-8",
    }
    child = Child.start([BASH, str(SHIM)], environment, ends.given, told_at=SPECIFICATION)
    ends.let_go()
    try:
        assert json.loads(os.read(child.answer, 65536))["mode"] == "handler"
        yield Talk(child, ends)
    finally:
        if not child.ended():
            ends.close()
            assert child.ended(SECONDS)
            assert child.code() == 0


@pytest.mark.parametrize(
    "value",
    [
        "",
        "'",
        "a'b''c",
        "$(touch x) `id` $HOME",
        "back\\slash",
        "a\nb\r",
        "żółw",
        "\xe2'",
        "! # * ~ ( ) ; & | < >",
    ],
)
def test_what_is_asked_for_reaches_the_function_as_it_was_sent(tmp_path, value):
    code = r"""handle() { printf '%s\0' "$HEADER_A" "${HEADERS[a]}" "${QUERY[$HEADER_A]}" "$PATH_INFO" "$METHOD"; }"""
    sent = value.encode()
    quoted = "".join(f"%{byte:02x}" for byte in sent)
    with shim(tmp_path, code) as talk:
        _, _, body = talk.ask(f"/p{quoted}?{quoted or 'x'}={quoted}", a=sent.decode("latin-1"))
        found = body.split(b"\0")
    assert found[:2] == [sent, sent]
    assert found[2] == (sent if sent else b"")
    assert found[3:5] == [b"/p" + sent, b"GET"]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("body", [b"", b"a\0b", b"\0", bytes(range(256)) * 300, b"line\n\n", b" x " * 10_000])
def test_a_body_of_any_bytes_comes_whole_and_goes_back(tmp_path, body):
    with shim(tmp_path, "handle() { status 200; cat; }") as talk:
        for _ in range(3):
            assert talk.ask(body=body, method="POST")[2] == body


def test_what_a_request_does_to_its_shell_is_gone_with_it(tmp_path):
    code = """
seen=none
handle() {
  printf '%s %s %s %s' "$seen" "${HEADER_A-unset}" "${QUERY[a]-unset}" "$(later 2>&1 || pwd)"
  seen=changed IFS=x
  later() { echo defined; }
  cd /
  set -eu
}
"""
    with shim(tmp_path, code) as talk:
        for number in range(4):
            _, _, body = talk.ask("/?a=1", a="one") if number % 2 else talk.ask()
            expected = "none one 1" if number % 2 else "none unset unset"
            assert body.decode().startswith(expected), body
            assert body.decode().endswith(str(tmp_path)), body


@pytest.mark.parametrize(
    ("code", "status", "answer"),
    [
        ("echo said; exit", 200, b"said\n"),
        ("exec echo said", 200, b"said\n"),
        ("trap 'echo trapped' EXIT; echo said", 200, b"said\ntrapped\n"),
        ("set -u; echo said", 200, b"said\n"),
        ("set -f; IFS=; echo said; exec 0<&- 1>&- 6<&-", 200, b"said\n"),
        ("echo first >&2; echo reason >&2; exit 3", 500, ("ExitStatus3", "reason")),
        ("kill -KILL $BASHPID", 500, ("ExitStatus137", "the handler ended with exit status 137")),
        ("trap 'exit 4' EXIT; echo said", 500, ("ExitStatus4", "the handler ended with exit status 4")),
        ("status 418; trap 'echo trapped' EXIT", 418, b"trapped\n"),
        (":", 204, b""),
    ],
)
def test_however_a_handler_ends_its_request_is_answered_once(tmp_path, code, status, answer):
    with shim(
        tmp_path, f"handle() {{ if [[ $PATH_INFO == /plain ]]; then echo plain; else {code}; fi; }}"
    ) as talk:
        for _ in range(3):
            found, _, body = talk.ask()
            if isinstance(answer, tuple):
                said = json.loads(body)
                assert (found, said["type"], said["message"]) == (status, *answer)
            else:
                assert (found, body) == (status, answer)
            assert talk.ask("/plain")[::2] == (200, b"plain\n")


@pytest.mark.parametrize(
    "code", ["echo said", "trap 'echo trapped' EXIT", "stream; echo said", "head -c 100000 /dev/zero"]
)
def test_an_answer_to_head_has_no_body(tmp_path, code):
    with shim(
        tmp_path, f"handle() {{ if [[ $PATH_INFO == /plain ]]; then echo plain; else {code}; fi; }}"
    ) as talk:
        assert talk.ask(method="HEAD")[::2] == (200, b"")
        assert talk.ask("/plain")[::2] == (200, b"plain\n")


def test_what_a_handler_says_is_in_the_log_before_its_answer(tmp_path, capfd):
    with shim(tmp_path, 'handle() { echo "$PATH_INFO" >&2; echo said; }') as talk:
        for number in range(10):
            talk.ask(f"/{number}")
            assert capfd.readouterr().err == f"/{number}\n"


def test_what_a_handler_says_is_in_the_log_while_it_runs(tmp_path, capfd):
    go = tmp_path / "go"
    os.mkfifo(go)
    with shim(tmp_path, f"handle() {{ echo first >&2; read -r line <{go}; echo second >&2; }}") as talk:
        request = threading.Thread(target=talk.ask)
        request.start()
        until_said(capfd, "first\n")
        go.write_text("go\n")
        request.join(SECONDS)
        assert capfd.readouterr().err == "second\n"


def test_what_outlives_its_request_has_its_body_and_is_in_the_log(tmp_path, capfd):
    go = tmp_path / "go"
    os.mkfifo(go)
    code = f"""
handle() {{
  echo "$PATH_INFO"
  if [[ $PATH_INFO == /one ]]; then
    {{ read -r line <{go}; cat >&2; }} <&0 >/dev/null &
  fi
}}"""
    with shim(tmp_path, code) as talk:
        assert talk.ask("/one", body=b"later\n")[2] == b"/one\n"
        for number in range(slots.COUNT - 1):  # its slot has its turn after these
            assert talk.ask(f"/{number}", body=b"theirs\n")[2] == b"/%d\n" % number
        go.write_text("go\n")
        until_said(capfd, "later\n")


def until_said(capfd, text):
    deadline, said = time.monotonic() + SECONDS, ""
    while said != text:
        assert time.monotonic() < deadline, said
        said += capfd.readouterr().err
        time.sleep(0.01)


def test_a_stream_is_sent_as_it_is_printed(tmp_path):
    code = "handle() { echo before; stream; echo one; head -c 200000 /dev/zero; }"
    with shim(tmp_path, code) as talk:
        for _ in range(3):
            pieces = talk.pieces()
            assert b"\r\ntransfer-encoding: chunked\r\n" in pieces[0]
            assert len(pieces) > 2
            body, rest = b"", b"".join(pieces).partition(b"\r\n\r\n")[2]
            while rest != b"0\r\n\r\n":
                size, _, rest = rest.partition(b"\r\n")
                body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
            assert body == b"before\none\n" + bytes(200_000)


def test_a_stream_that_breaks_off_is_cut_and_the_shim_goes_on(tmp_path):
    code = "handle() { [[ $PATH_INFO == /plain ]] || stream; echo said; return 3; }"
    with shim(tmp_path, code) as talk:
        for _ in range(3):
            with pytest.raises(Disconnected):
                talk.pieces()
            assert talk.ask("/plain")[0] == 500


def test_a_large_answer_comes_whole_in_pieces(tmp_path):
    with shim(tmp_path, 'handle() { head -c "${QUERY[size]}" /dev/zero; }') as talk:
        for size in (65535, 65536, 65537, 1_000_000):
            pieces = talk.pieces(f"/?size={size}")
            assert b"".join(pieces).partition(b"\r\n\r\n")[2] == bytes(size)
            assert max(map(len, pieces)) < 70_000


def test_a_shell_whose_processes_are_killed_before_their_requests_is_given_up(tmp_path):
    code = f"""
handle() {{
  if [[ $PATH_INFO == /kill ]]; then
    until (($(pgrep -c -P $$) == {slots.COUNT})); do :; done
    self=$BASHPID
    kill -KILL $(pgrep -P $$ | grep -vx $self)
    while (($(pgrep -c -P $$) > 1)); do :; done  # one that is still dying may take a request along
  fi
}}"""
    with shim(tmp_path, code) as talk:
        assert talk.ask("/kill")[0] == 204
        with pytest.raises(exchange.BadResponse, match="not asked"):
            ask_on(talk)
        talk.worker.end()


def ask_on(talk):
    for _ in range(1000):
        assert talk.ask()[0] in (204, 500)


def test_programs_of_a_handler_have_descriptors_of_their_request_only(tmp_path):
    others = {int(name) for name in os.listdir("/dev/fd") if inherited(int(name))}
    with shim(tmp_path, "handle() { ls /proc/self/fd; }") as talk:
        for _ in range(slots.COUNT):
            found = set(map(int, talk.ask()[2].split())) - others
            assert found - {0, 1, 2, 3} == {slots.SAID, slots.HEAD, slots.STREAM, 24}  # which is the log


def inherited(descriptor):
    """Whether what the tests themselves were started with goes on to programs."""
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False


@pytest.mark.parametrize(
    ("code", "is_handler"),
    [
        ("handle() { echo handled; }", True),
        ("  handle () {\n  echo handled\n}", True),
        ("#!/bin/bash\n\nfunction handle { echo handled; }", True),
        ("x=1; handled() { :; }\nfunction handler { :; }\necho ran", False),
        ("# handle() is what there is none of\necho ran", False),
    ],
)
def test_a_script_without_a_handler_is_run_as_a_whole(tmp_path, code, is_handler):
    with shim(tmp_path, code) as talk:
        for _ in range(2):
            assert talk.ask()[2] == (b"handled\n" if is_handler else b"ran\n")


def test_a_shim_takes_no_program_but_bash(tmp_path):
    with shim(tmp_path, "handle() { read -r line; echo $line; }", path="/nowhere") as talk:
        assert talk.ask(body=b"said\n")[2] == b"said\n"


def test_a_text_becomes_a_string_of_json(tmp_path):
    text = "".join(map(chr, range(1, 128))) + "żółw 🐢 & \\&"
    with shim(tmp_path, 'handle() { json_string "$(cat; echo .)"; }') as talk:
        assert json.loads(talk.ask(body=text.encode())[2]) == text + ".\n".strip()
