"""Archives made entry by entry, most of them hostile: names, kinds, links, sizes, modes and headers of any sort."""

import gzip
import io
import stat
import tarfile
import warnings
import zipfile

from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.archive import check_archive, tar_of

SEEDS = [bytes(200), bytes(range(256)), b"\1" * 300]


def mostly(usual: st.SearchStrategy, odd: st.SearchStrategy) -> st.SearchStrategy:
    """Draws what is usual nine times of ten, so that what is odd is met within what is read at all."""
    return st.integers(0, 9).flatmap(lambda chance: usual if chance else odd)


_fine = st.sampled_from(["a", "b", "c", "d e", "ö", ".x"])
_odd = st.sampled_from(
    ["..", ".", "", "o\u0308", "\\", "\n", "\x7f", "\udcff", "n" * 256, "/".join(["p" * 200] * 6), "d/" * 65]
)
names = st.lists(mostly(_fine, _odd), min_size=1, max_size=4).map("/".join)
targets = mostly(
    names,
    st.sampled_from(["", ".", "..", "../..", "a/../..", "/etc/passwd", "a" * 1001, "a\0b", "a/" * 2100]),
)
contents = mostly(st.binary(max_size=30), st.sampled_from([bytes(600), bytes(21_000)]))
_kinds = mostly(
    st.sampled_from([tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE]),
    st.sampled_from([b"\0", b"3", b"4", b"6", b"7", b"S", b"V", b"x", b"g", b"L", b"K", b"Z"]),
)
_pax = st.dictionaries(
    st.sampled_from(
        ["path", "linkpath", "size", "GNU.sparse.name", "GNU.sparse.realsize", "mtime", "uid", "hdrcharset"]
    ),
    names | st.sampled_from(["0", "5", "-1", "9" * 30, "1e3", "x"]),
    max_size=2,
)


@st.composite
def _tar_entry(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(draw(names))
    info.type, info.linkname, info.mode = draw(_kinds), draw(targets), draw(st.integers(0, 0o7777))
    content = draw(contents) if info.type in (tarfile.REGTYPE, b"7", b"\0") else b""
    info.size = draw(mostly(st.just(len(content)), st.sampled_from([0, 1, 1 << 20, 1 << 33])))
    info.pax_headers = draw(mostly(st.just({}), _pax))
    return info, content


@st.composite
def tars(draw: st.DrawFn) -> bytes:
    """Draws a tar, in any of the formats, perhaps compressed, perhaps cut off or continued."""
    entries = draw(st.lists(_tar_entry(), min_size=1, max_size=draw(mostly(st.just(5), st.just(25)))))
    form = draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))
    content = tar_of(entries, form)
    content = content[: draw(mostly(st.just(len(content)), st.integers(1, len(content))))]
    return gzip.compress(content, 1) if draw(st.booleans()) else content


@st.composite
def _zip_entry(draw: st.DrawFn) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo("x")
    info.filename = info.orig_filename = draw(names).replace(
        "\udcff", "\x01"
    )  # a zip says how its names are encoded
    usual = st.sampled_from([0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK])
    kind = draw(mostly(usual, st.sampled_from([stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])))
    info.create_system = draw(st.sampled_from([0, 3, 3, 3]))
    info.external_attr = (kind | draw(st.integers(0, 0o7777))) << 16
    fine = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
    info.compress_type = draw(mostly(fine, st.just(zipfile.ZIP_BZIP2)))
    content = draw(targets).encode("utf-8", "replace") if kind == stat.S_IFLNK else draw(contents)
    return info, content


@st.composite
def zips(draw: st.DrawFn) -> bytes:
    """Draws a zip, perhaps with something before it, behind it, or changed in its directory."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w") as archive:
        warnings.simplefilter("ignore")  # the same name twice
        for info, content in draw(st.lists(_zip_entry(), min_size=1, max_size=5)):
            archive.writestr(info, content)
    content = bytearray(buffer.getvalue())
    for _ in range(draw(mostly(st.just(0), st.integers(1, 3)))):
        directory = content.rindex(b"PK\x01\x02")
        content[draw(st.integers(directory + 4, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content) + draw(mostly(st.just(b""), st.sampled_from([b"behind", b"PK\x05\x06"])))


archives = tars() | zips()


@given(archives)
def check_entries(content: bytes) -> None:
    """Raises AssertionError where an upload does what no upload may."""
    check_archive(content)


check = check_entries.hypothesis.fuzz_one_input
