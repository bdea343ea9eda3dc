"""What people upload: every kind is read, everything hostile is refused with the entry's name, nothing is
written elsewhere."""

import gzip
import io
import os
import resource
import stat
import struct
import tarfile
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from martlet.errors import Invalid
from martlet.package.archive import unpack_archive
from martlet.package.packing import pack
from martlet.package.rules import Limits
from tests.alone import alone

LIMITS = Limits(bytes=1_000_000, entries=100)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """A folder in two others that nothing may be written to, so that these can be looked through at each test."""
    inner = tmp_path / "outside" / "of"
    inner.mkdir(parents=True)
    return inner


def tar_of(*members: tuple[tarfile.TarInfo, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, content: bytes = b"x", **attributes: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


def zip_of(*members: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def unpacked(tmp_path: Path, content: bytes, limits: Limits = LIMITS) -> Path:
    archive = tmp_path / "upload"
    archive.write_bytes(content)
    folder = tmp_path / "folder"
    folder.mkdir()
    unpack_archive(archive, folder, limits)
    return folder


def taken(tmp_path: Path, content: bytes, limits: Limits = LIMITS) -> Path:
    """Returns the package that an archive becomes."""
    return pack(unpacked(tmp_path, content, limits), tmp_path / "packed", limits).path


def refusal(tmp_path: Path, content: bytes, limits: Limits = LIMITS) -> str:
    """Returns the sentence that an archive is refused with, and checks that nothing lies elsewhere."""
    outside = tmp_path.parents[1]
    before = sorted(path for path in outside.rglob("*") if tmp_path not in path.parents)
    with pytest.raises(Invalid) as caught:
        taken(tmp_path, content, limits)
    assert sorted(path for path in outside.rglob("*") if tmp_path not in path.parents) == before
    assert {path.name for path in tmp_path.iterdir()} <= {"upload", "folder", "packed"}
    assert caught.value.field == "code"
    return caught.value.detail


TREE = {"handler.py": b"def handle(request): ...", "data/words.txt": b"a b", "data/deep/x": b""}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(zip_of(*TREE.items()), id="zip"),
        pytest.param(zip_of(*TREE.items(), compression=zipfile.ZIP_STORED), id="zip, stored"),
        pytest.param(tar_of(*(member(*item) for item in TREE.items())), id="tar, pax"),
        pytest.param(
            tar_of(*(member(*item) for item in TREE.items()), kind=tarfile.GNU_FORMAT), id="tar, GNU"
        ),
        pytest.param(
            tar_of(*(member(*item) for item in TREE.items()), kind=tarfile.USTAR_FORMAT), id="ustar"
        ),
        pytest.param(gzip.compress(tar_of(*(member(f"./{n}", c) for n, c in TREE.items()))), id="tar.gz"),
    ],
)
def test_every_kind_is_told_by_its_content_and_read(tmp_path: Path, content: bytes) -> None:
    folder = unpacked(tmp_path, content)
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert found == TREE


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_and_foreign_names_are_read(tmp_path: Path, kind: int) -> None:
    name = "/".join(["größe" * 8] * 12) + "/日本.py"
    folder = unpacked(
        tmp_path,
        tar_of(member(name, b"1"), member("l", b"", type=tarfile.SYMTYPE, linkname=name), kind=kind),
    )
    assert (folder / name).read_bytes() == b"1"
    assert os.readlink(folder / "l") == name


def test_executables_links_and_hard_links_survive(tmp_path: Path) -> None:
    folder = unpacked(
        tmp_path,
        tar_of(
            member("bin/run", b"#!/bin/sh", mode=0o4755),
            member("run", b"", type=tarfile.SYMTYPE, linkname="bin/run"),
            member("same", b"", type=tarfile.LNKTYPE, linkname="bin/run"),
            member("empty", b"", type=tarfile.DIRTYPE, mode=0),
        ),
    )
    assert stat.S_IMODE((folder / "bin/run").stat().st_mode) == 0o755
    assert os.readlink(folder / "run") == "bin/run"
    assert (folder / "same").read_bytes() == b"#!/bin/sh"
    assert os.access(folder / "same", os.X_OK)
    assert stat.S_IMODE((folder / "empty").stat().st_mode) == 0o755


def test_a_link_and_a_mode_in_a_zip_are_kept(tmp_path: Path) -> None:
    link, script = zipfile.ZipInfo("link"), zipfile.ZipInfo("script")
    link.create_system = script.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    script.external_attr = (stat.S_IFREG | 0o700) << 16
    folder = unpacked(tmp_path, zip_of((link, b"script"), (script, b"#!")))
    assert os.readlink(folder / "link") == "script"
    assert os.access(folder / "script", os.X_OK)


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "a/../../evil",
        "/etc/evil",
        "a\\..\\evil",
        "nul\0",
        "line\nbreak",
        "n" * 256,
        "d/" * 65 + "f",
        "/".join(["p" * 200] * 6),
        "\udcff",
    ],
)
@pytest.mark.parametrize("make", ["tar", "zip"])
def test_names_that_lead_out_or_trip_are_refused(tmp_path: Path, name: str, make: str) -> None:
    if make == "tar":
        name = name.replace("\0", "\x01")  # a NUL ends a name in a tar
        content = tar_of(member(name), kind=tarfile.GNU_FORMAT)
    else:
        name = name.replace("\udcff", "\x01")  # a zip says how its names are encoded
        info = zipfile.ZipInfo("x")
        info.filename = info.orig_filename = name
        content = zip_of((info, b"x"))
    assert ascii(name)[1:5].strip("'") in refusal(tmp_path, content)


@pytest.mark.parametrize("target", ["/etc/passwd", "..", "../../etc", "a/../../b", ""])
def test_links_that_lead_out_are_refused(tmp_path: Path, target: str) -> None:
    content = tar_of(member("f"), member("link", b"", type=tarfile.SYMTYPE, linkname=target))
    assert "'link'" in refusal(tmp_path, content)


def test_links_that_lead_out_through_one_another_are_refused(tmp_path: Path) -> None:
    content = tar_of(
        member("a/b/f"),
        member("a/b/up", b"", type=tarfile.SYMTYPE, linkname="../.."),
        member("out", b"", type=tarfile.SYMTYPE, linkname="a/b/up/.."),
    )
    assert "'out' leads out of the package" in refusal(tmp_path, content)


def test_links_that_go_round_in_circles_are_refused(tmp_path: Path) -> None:
    content = tar_of(
        member("f"),
        member("a", b"", type=tarfile.SYMTYPE, linkname="b"),
        member("b", b"", type=tarfile.SYMTYPE, linkname="a"),
    )
    assert "circles" in refusal(tmp_path, content)


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path.parent / f"{tmp_path.name}-outside"
    outside.mkdir()
    content = tar_of(
        member("door", b"", type=tarfile.SYMTYPE, linkname=str(outside)),
        member("door/evil"),
    )
    assert "'door' is there twice" in refusal(tmp_path, content)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize(
    "kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE, b"Z"]
)
def test_special_entries_of_a_tar_are_refused(tmp_path: Path, kind: bytes) -> None:
    assert "'special' is" in refusal(tmp_path, tar_of(member("special", b"", type=kind)))


def test_special_entries_of_a_zip_are_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("pipe")
    info.create_system, info.external_attr = 3, (stat.S_IFIFO | 0o644) << 16
    assert "'pipe' is a special file" in refusal(tmp_path, zip_of((info, b"")))


@pytest.mark.parametrize("make", [lambda *m: zip_of(*m), lambda *m: tar_of(*(member(*x) for x in m))])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice_is_refused(tmp_path: Path, make: object) -> None:
    assert "'a' is there twice" in refusal(tmp_path, make(("a", b"1"), ("./a", b"2")))  # type: ignore[operator]


def test_a_file_that_is_also_a_folder_is_refused(tmp_path: Path) -> None:
    assert "'a' is there twice" in refusal(tmp_path, tar_of(member("a"), member("a/b")))


def test_a_hard_link_to_what_is_not_there_is_refused(tmp_path: Path) -> None:
    content = tar_of(member("a", b"", type=tarfile.LNKTYPE, linkname="/etc/shadow"))
    assert "absolute path" in refusal(tmp_path, content)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(gzip.compress(tar_of(member("zeros", bytes(2_000_000)))), id="tar.gz"),
        pytest.param(zip_of(("zeros", bytes(2_000_000))), id="zip"),
        pytest.param(gzip.compress(tar_of(member("a")) + bytes(5_000_000)), id="behind the end"),
    ],
)
def test_bombs_are_stopped_while_they_unpack(tmp_path: Path, content: bytes) -> None:
    assert "unpacks to" in refusal(tmp_path, content)
    assert sum(path.stat().st_size for path in tmp_path.rglob("folder/*") if path.is_file()) <= LIMITS.bytes


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path) -> None:
    content = bytearray(zip_of(("zeros", bytes(2_000_000))))
    directory = content.index(b"PK\x01\x02")
    struct.pack_into("<L", content, directory + 24, 10)
    refusal(tmp_path, bytes(content))


def test_too_many_entries_are_refused(tmp_path: Path) -> None:
    assert "over 100" in refusal(tmp_path, tar_of(*(member(str(n)) for n in range(101))))


def test_too_many_entries_of_a_zip_are_refused_before_they_are_read(tmp_path: Path) -> None:
    assert "over 100 entries" in refusal(tmp_path, zip_of(*((str(n), b"") for n in range(101))))


def test_a_second_directory_in_the_zip64_format_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """Readers take it instead of the one at the end, whatever that one says."""
    content = zip_of(*((str(n), b"") for n in range(101)))
    end = content.rindex(b"PK\x05\x06")
    size, start = struct.unpack_from("<LL", content, end + 12)
    record = struct.pack("<4sQHHLLQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 101, 101, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, end, 1)
    harmless = struct.pack("<4s4HLLH", b"PK\x05\x06", 0, 0, 0, 0, 0, 0, 0)
    assert "zip64" in refusal(tmp_path, content[:end] + record + locator + harmless)


def test_folders_count_as_entries(tmp_path: Path) -> None:
    content = tar_of(*(member("/".join([str(n)] * 40)) for n in range(3)))
    assert "over 100" in refusal(tmp_path, content)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK", bytes(512), b"\x1f\x8b", b"BZh91AY&SY", b"\xfd7zXZ\0"]
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    refusal(tmp_path, content)


@pytest.mark.parametrize("make", [tar_of, lambda *m: gzip.compress(tar_of(*m))])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_an_archive_that_is_cut_off_is_refused(tmp_path: Path, make: object, share: float) -> None:
    content = make(member("a", os.urandom(3000)), member("b", os.urandom(3000)))  # type: ignore[operator]
    content = content.removesuffix(bytes(1024)).rstrip(b"\0") if content[:2] != b"\x1f\x8b" else content
    refusal(tmp_path, content[: int(len(content) * share)])


def test_a_tar_without_its_end_is_refused(tmp_path: Path) -> None:
    assert "cut off" in refusal(tmp_path, tar_of(member("a"))[:1024])


def test_a_zip_whose_directory_points_before_it_is_refused(tmp_path: Path) -> None:
    content = bytearray(zip_of(("a", b"x")))
    end = content.index(b"PK\x05\x06")
    (offset,) = struct.unpack_from("<L", content, end + 16)
    struct.pack_into("<L", content, end + 16, offset + 20)
    assert "the zip is damaged: its directory points" in refusal(tmp_path, bytes(content))


def test_a_zip_with_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    content = bytearray(zip_of(("ö", b"x")))
    directory = content.index(b"PK\x01\x02")
    content[directory + 46] = 0xFF
    assert "a name in the zip is not UTF-8" in refusal(tmp_path, bytes(content))


def test_a_disk_that_takes_no_more_is_not_the_fault_of_an_archive(tmp_path: Path) -> None:
    def unpack_with_little_room() -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        try:
            unpacked(tmp_path, zip_of(("large", bytes(100_000))))
        except OSError as error:
            return type(error).__name__
        return "unpacked"

    assert alone(unpack_with_little_room) == "OSError"


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    content = bytearray(zip_of(("secret", b"x")))
    content[content.index(b"PK\x01\x02") + 8] |= 1
    assert "'secret' is encrypted" in refusal(tmp_path, bytes(content))


def test_an_unusual_compression_is_refused(tmp_path: Path) -> None:
    assert "unusual" in refusal(tmp_path, zip_of(("a", b"x" * 99), compression=zipfile.ZIP_LZMA))


def test_an_archive_of_folders_only_is_refused(tmp_path: Path) -> None:
    assert "no files" in refusal(tmp_path, tar_of(member("d", b"", type=tarfile.DIRTYPE)))


def test_headers_without_end_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type = b"x"
    refusal(tmp_path, header.tobuf() * 5000 + bytes(1024))


def test_a_header_of_a_gigabyte_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = b"x", 1 << 30
    assert "too long" in refusal(tmp_path, header.tobuf() + bytes(4096))


BASES = [
    zip_of(*TREE.items()),
    tar_of(*(member(*item) for item in TREE.items())),
    gzip.compress(tar_of(*(member(*item) for item in TREE.items()))),
]


@given(st.data())
@settings(max_examples=400)
def test_whatever_is_uploaded_is_either_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(data.draw(st.sampled_from(BASES)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "copy", "insert"])):
            case "flip":
                content[at] = data.draw(st.integers(0, 255))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 600))]
            case "copy":
                content[at:at] = content[: data.draw(st.integers(1, 1024))]
            case "insert":
                content[at:at] = data.draw(st.binary(max_size=40))
        content = content or bytearray(b"\0")
    base = tmp_path_factory.mktemp("fuzz")
    with suppress(Invalid):
        taken(base, bytes(content))
    assert {path.name for path in base.iterdir()} <= {"upload", "folder", "packed"}


names = st.text(min_size=1, max_size=12).filter(
    lambda name: not name.endswith("/")
)  # with one, it is a folder


@given(st.dictionaries(names, st.binary(max_size=40), min_size=1, max_size=5))
@settings(max_examples=150)
def test_any_names_are_either_taken_as_they_are_or_refused(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    try:
        content = tar_of(*(member(name, body) for name, body in files.items()))
    except (UnicodeEncodeError, ValueError):
        return
    base = tmp_path_factory.mktemp("names")
    try:
        folder = unpacked(base, content)
    except Invalid:
        return
    assert sum(path.is_file() for path in folder.rglob("*")) == len(files)
    assert {path.name for path in base.iterdir()} == {"upload", "folder"}
