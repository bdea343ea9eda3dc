"""What the shim of Bash brings because Bash has none: requests in pieces that it reads at once, and processes ahead."""

import json
import subprocess
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from martlet import runtimes
from martlet.runtimes.program._martlet_program import assignments, exchange

SHIM = Path(runtimes.__file__).resolve().parent / "bash/shim.bash"


class Talk:
    """A shim on its pipes; ``ask`` returns status, head and body of an answer."""

    def __init__(self, process):
        self.process = process

    def send(self, target="/", method="GET", body=b"", **fields):
        head = SimpleNamespace(method=method, target=target, fields={"x-request-id": "one", **fields})
        self.process.stdin.write(assignments.request(head, body))
        self.process.stdin.flush()

    def ask(self, target="/", method="GET", body=b"", **fields):
        self.send(target, method, body, **fields)
        response = exchange.Response(method == "HEAD", lambda: self.process.stdout.read1(65536))
        head, _, body = b"".join(response.pieces()).partition(b"\r\n\r\n")
        return int(head.split()[1]), head, body

    def error(self):
        return self.process.stderr.readline()


@contextmanager
def shim(folder, code):
    """Runs a shim with this code; ends it as the warden does."""
    (folder / "handler.sh").write_text(code)
    process = subprocess.Popen(
        ["bash", "-c", f'cd {folder}; exec "$@" 4>answer', "bash", "bash", SHIM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={
            "MARTLET_HANDLER": "handle",
            "MARTLET_CODE": str(folder),
            "PATH": "/usr/bin:/bin",
            "TMPDIR": str(folder),
            "LANG": "C.UTF-8",
        },
    )
    with process:
        try:
            yield Talk(process)
        finally:
            process.stdin.close()
            process.wait(20)
            if process.returncode == 0:
                assert json.loads((folder / "answer").read_text())["mode"] == "handler"


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


def test_what_a_handler_says_is_in_the_log_before_its_answer(tmp_path):
    with shim(tmp_path, 'handle() { echo "$PATH_INFO" >&2; echo said; }') as talk:
        for number in range(10):
            talk.ask(f"/{number}")
            assert talk.error() == b"/%d\n" % number


def test_a_stream_that_breaks_off_ends_the_shim(tmp_path):
    with shim(tmp_path, "handle() { stream; echo said; exit 3; }") as talk:
        talk.send()
        assert talk.process.wait(20) != 0


def test_a_text_becomes_a_string_of_json(tmp_path):
    text = "".join(map(chr, range(1, 128))) + "żółw 🐢 & \\&"
    with shim(tmp_path, 'handle() { json_string "$(cat; echo .)"; }') as talk:
        assert json.loads(talk.ask(body=text.encode())[2]) == text + ".\n".strip()
