"""Archives as attackers make them, sent to a running platform. The rules entry by entry are tested in
tests/unit/package/test_archive.py; here nothing may be written elsewhere, nothing may be left, and nobody waits."""

import gzip
import io
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

from tests.security.conftest import bounded_memory, undisturbed

HANDLER = b"def handle(request):\n    return 'taken'\n"
MIB = 1024 * 1024


def tar(*members, kind=tarfile.PAX_FORMAT):
    """Returns a tar of ``(name, content)`` pairs and `TarInfo`s."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=kind) as archive:
        for member in [("handler.py", HANDLER), *members]:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member, io.BytesIO(bytes(member.size)))
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return file.getvalue()


def special(name, kind, target="", pax=None, size=0):
    """Returns an entry that is no ordinary file."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, size
    info.pax_headers = pax or {}
    return info


def zipped(*entries):
    """Returns a zip of ``(name or ZipInfo, content)`` pairs."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [("handler.py", HANDLER), *entries]:
            archive.writestr(name, content)
    return file.getvalue()


def zip_entry(name, mode):
    """Returns an entry with a Unix mode."""
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def overlapping():
    """Returns a zip in which a thousand names share the one compressed megabyte."""
    content = bytearray(zipped(("0000", bytes(MIB))))
    end = content.rindex(b"PK\5\6")
    size, start = struct.unpack_from("<LL", content, end + 12)
    directory = bytes(content[start : start + size])
    handler, zeros = (b"PK\1\2" + each for each in directory.split(b"PK\1\2")[1:])
    entries = handler + b"".join(zeros[:-4] + b"%04d" % number for number in range(1000))
    tail = struct.pack("<4s4HLLH", b"PK\5\6", 0, 0, 1001, 1001, len(entries), start, 0)
    return bytes(content[:start]) + entries + tail


def zip64_directory(count):
    """Returns a zip whose ordinary directory is empty, and whose second one in the zip64 format is huge."""
    local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, 1, 0) + b"a"
    entry = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"a"
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(entry) * count, len(local)
    )
    place = len(local) + len(entry) * count
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, place, 1)
    return local + entry * count + record + locator + struct.pack("<4s4HLLH", b"PK\5\6", 0, 0, 0, 0, 0, 0, 0)


def lying(field, value):
    """Returns a zip that says something else about an entry in its directory."""
    content = bytearray(zipped(("zeros", bytes(MIB))))
    struct.pack_into("<L", content, content.rindex(b"PK\1\2") + field, value)
    return bytes(content)


def encrypted():
    """Returns a zip with an entry that says it is encrypted."""
    content = bytearray(zipped(("secret", b"x")))
    for sign, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.rindex(sign) + place] |= 1
    return bytes(content)


ESCAPES = {
    "tar parent": lambda mark: tar((f"../{mark}", b"x")),
    "tar parents": lambda mark: tar((f"a/../../../../../../../../..{tempfile.gettempdir()}/{mark}", b"x")),
    "tar absolute": lambda mark: tar((f"{tempfile.gettempdir()}/{mark}", b"x")),
    "zip parent": lambda mark: zipped((f"../../../../../../..{tempfile.gettempdir()}/{mark}", b"x")),
    "zip absolute": lambda mark: zipped((f"{tempfile.gettempdir()}/{mark}", b"x")),
    "zip backslashes": lambda mark: zipped((f"..\\..\\{mark}", b"x")),
    "zip drive": lambda mark: zipped((f"C:\\{mark}", b"x")),
    "link out": lambda mark: tar(special("out", tarfile.SYMTYPE, "/etc/passwd")),
    "link out and a file through it": lambda mark: tar(
        special("out", tarfile.SYMTYPE, tempfile.gettempdir()), (f"out/{mark}", b"x")
    ),
    "links out by steps": lambda mark: tar(
        special("a", tarfile.SYMTYPE, "."),
        special("a/b", tarfile.SYMTYPE, ".."),
        special("a/b/c", tarfile.SYMTYPE, ".."),
        (f"a/b/c/{mark}", b"x"),
    ),
    "link inside and a file through it": lambda mark: tar(
        ("folder/file", b"x"), special("inside", tarfile.SYMTYPE, "folder"), (f"inside/{mark}", b"x")
    ),
    "zip link out": lambda mark: zipped((zip_entry("out", 0o120777), b"/etc/passwd")),
    "hard link out": lambda mark: tar(special("out", tarfile.LNKTYPE, "/etc/passwd")),
    "hard link to a link": lambda mark: tar(
        special("out", tarfile.SYMTYPE, "../../../etc/passwd"), special("hard", tarfile.LNKTYPE, "out")
    ),
    "long name by GNU": lambda mark: tar((f"../{mark}{'x' * 200}", b"x"), kind=tarfile.GNU_FORMAT),
    "name by pax": lambda mark: tar(special("x", tarfile.REGTYPE, pax={"path": f"../{mark}"})),
    "link by pax": lambda mark: tar(special("x", tarfile.SYMTYPE, pax={"linkpath": "/etc/passwd"})),
    "character device": lambda mark: tar(special("null", tarfile.CHRTYPE)),
    "block device": lambda mark: tar(special("disk", tarfile.BLKTYPE)),
    "FIFO": lambda mark: tar(special("fifo", tarfile.FIFOTYPE)),
    "zip device": lambda mark: zipped((zip_entry("null", 0o020666), b"")),
    "zip FIFO": lambda mark: zipped((zip_entry("fifo", 0o010666), b"")),
}
BOMBS = {
    "zip": lambda: zipped(("zeros", bytes(300 * MIB))),
    "tar.gz": lambda: gzip.compress(tar(("zeros", bytes(300 * MIB))), 1),
    "behind the end": lambda: gzip.compress(tar() + bytes(400 * MIB), 1),
    "overlapping": overlapping,
    "many files": lambda: gzip.compress(tar(*((str(number), b"") for number in range(30_000))), 1),
    "many entries": lambda: zipped(*((str(number), b"") for number in range(30_000))),
    "many folders": lambda: tar(("/".join("abc" for _ in range(300)), b"")),
    "zip64": lambda: zip64_directory(500_000),
    "sparse by pax": lambda: tar(
        special("hole", tarfile.REGTYPE, pax={"GNU.sparse.major": "1", "GNU.sparse.realsize": str(1 << 50)})
    ),
    "sparse by GNU": lambda: tar(special("hole", b"S")),
    "size by pax": lambda: tar(special("huge", tarfile.REGTYPE, pax={"size": "9" * 19})),
    "header by pax": lambda: gzip.compress(
        tar(special("x", tarfile.REGTYPE, pax={"comment": "x" * 50 * MIB})), 1
    ),
    "long name": lambda: tar(("x" * 5000, b"")),
    "smaller than it is": lambda: lying(24, 10),
    "before the start": lambda: lying(42, 2**32 - 1),
    "cut off": lambda: zipped(("x", b"y" * 1000))[:-30],
    "encrypted": encrypted,
    "twice": lambda: tar(("x", b"1"), ("./x", b"2")),
    "file and folder": lambda: tar(("x", b"1"), ("x/y", b"2")),
}


@pytest.fixture(scope="module", autouse=True)
def unpacked(platform):
    platform.deploy("unpacked", HANDLER.decode())
    yield
    platform.client.delete("/functions/unpacked")


@pytest.fixture(autouse=True)
def nothing_is_left(platform):
    """Of what was made on the way the log alone stays, and what served serves on."""
    yield
    assert platform.invoke("unpacked").text == "taken"
    assert platform.client.get("/functions/unpacked").json()["latest"] == 1
    folders = [platform.data / "builds", platform.data / "uploads"]
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    assert {file.name for file in files} == {"log"}


def send(platform, content):
    """Deploys an archive."""
    return platform.client.put("/functions/unpacked/code", content=content)


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_archive_writes_outside_of_its_folder(platform, escape):
    mark = f"martlet-escape-{platform.port}"
    answer = send(platform, ESCAPES[escape](mark))
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["detail"]
    places = [Path(tempfile.gettempdir()), platform.data.parent, platform.data, *platform.data.glob("*")]
    assert [found for place in places for found in place.glob(f"{mark}*")] == []


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_archive_takes_memory_disk_or_time_of_others(platform, bomb):
    content = BOMBS[bomb]()
    with undisturbed(platform), bounded_memory(platform, 192 * MIB):
        answer = send(platform, content)
    assert answer.status_code in (400, 413, 422), answer.text


def test_names_that_look_alike_stay_apart(platform):
    """Upper and lower case, composed and decomposed letters are different files, as Linux has it."""
    names = ["a.txt", "A.txt", "\N{LATIN SMALL LETTER E WITH ACUTE}", "e\N{COMBINING ACUTE ACCENT}"]
    code = b"import os\ndef handle(request):\n    return sorted(os.listdir('/function'))\n"
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name in names:
            archive.writestr(name, name)
        archive.writestr("handler.py", code)
    platform.deploy("alike", HANDLER.decode())
    assert platform.client.put("/functions/alike/code", content=content.getvalue()).status_code == 200
    assert platform.invoke("alike").json() == sorted([*names, "handler.py"])
    platform.client.delete("/functions/alike")


def test_an_archive_in_an_archive_is_a_file(platform):
    inner = zipped(("zeros", bytes(200 * MIB)))
    platform.deploy("nested", HANDLER.decode())
    answer = platform.client.put("/functions/nested/code", content=zipped(("inner.zip", inner)))
    assert answer.status_code == 200
    assert platform.invoke("nested").text == "taken"
    platform.client.delete("/functions/nested")
