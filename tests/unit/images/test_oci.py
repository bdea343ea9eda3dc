"""Images that others have made, and those who mean harm."""

import gzip
import hashlib
import json
import os
import shutil
import stat
import tarfile
from pathlib import Path
from typing import Any

import pytest

from martlet.errors import Invalid
from martlet.images.image import Image
from martlet.images.oci import import_image
from martlet.images.store import Images
from tests import oci
from tests.conftest import require
from tests.oci import Entry, Layout, archive, copy, folder, layer, link, spread

HELLO = layer(Entry("hello", "world"))
LIMIT = 1_000_000


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path / "images")


@pytest.fixture
def take(images: Images, tmp_path: Path):
    """Imports an image of these layers, or of these files."""

    def take(*layers: bytes, files: dict[str, bytes] | None = None, **config: Any) -> Image:
        files = Layout(list(layers), config).files() if files is None else files
        return import_image(images, "test", archive(tmp_path / "image.tar", files), "a test", LIMIT)

    return take


@pytest.fixture
def refuse(images: Images, take: Any):
    """Imports an image that must not be taken; returns why it is not."""

    def refuse(*layers: bytes, files: dict[str, bytes] | None = None) -> str:
        with pytest.raises(Invalid) as caught:
            take(*layers, files=files)
        assert caught.value.field == "image"
        assert caught.value.detail.startswith("the image cannot be taken: ")
        assert sorted(os.listdir(images.folder)) == [".lock", "names"]
        return caught.value.detail

    return refuse


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that no image may touch."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/kept").write_text("kept")
    return tmp_path / "outside"


# -- what is taken


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
@pytest.mark.parametrize("form", ["archive", "compressed archive", "folder"])
def test_an_image_is_taken_however_it_is_packed(images: Images, tmp_path: Path, form: str, compression: str):
    require(compression != "zstd" or shutil.which("zstd"), "zstd (apt-get install zstd)")
    files = Layout([HELLO], compression=compression).files()
    if form == "folder":
        path = spread(tmp_path / "image", files)
    else:
        path = archive(tmp_path / "image.tar", files)
        if form == "compressed archive":
            path.write_bytes(gzip.compress(path.read_bytes()))

    image = import_image(images, "test", path, "a test", LIMIT)

    assert (image.root / "hello").read_text() == "world"
    assert os.listdir(image.root.parent.parent / "names") == ["test"]


def test_what_docker_saves_is_taken_and_is_the_same_image(images: Images, tmp_path: Path):
    layout = Layout([HELLO], {"Cmd": ["/hello"]})
    saved = archive(tmp_path / "saved.tar", layout.docker())
    written = archive(tmp_path / "written.tar", layout.files())

    docker = import_image(images, "docker", saved, "", LIMIT)
    other = import_image(images, "oci", written, "", LIMIT)

    assert docker.digest == other.digest == hashlib.sha256(layout.configuration).hexdigest()


def test_layers_that_docker_saved_once_for_two_are_links(images: Images, tmp_path: Path):
    files = Layout([HELLO, HELLO]).docker()
    del files["1/layer.tar"]
    content = layer(
        *(Entry(name, text) for name, text in files.items()), link("1/layer.tar", "../0/layer.tar")
    )

    (tmp_path / "saved.tar").write_bytes(content)

    assert import_image(images, "test", tmp_path / "saved.tar", "", LIMIT).size == 5


def test_the_program_of_an_image_is_known(take: Any):
    config = {
        "Entrypoint": ["/server"],
        "Cmd": ["--fast"],
        "Env": ["MODE=a=b", "EMPTY="],
        "WorkingDir": "srv",
        "User": "7:8",
    }

    found = take(HELLO, **config).config

    assert (found.entrypoint, found.command) == (("/server",), ("--fast",))
    assert found.environment == {"MODE": "a=b", "EMPTY": ""}
    assert (found.folder, found.user) == ("/srv", "7:8")


def test_of_several_platforms_this_machines_is_taken(take: Any):
    layout = Layout([HELLO])
    mine = {**layout.manifest(), "platform": {"os": "linux", "architecture": oci.ARCHITECTURE}}
    layout.layers, layout.architecture = [layer(Entry("other", ""))], "s390x"
    other = {**layout.manifest(), "platform": {"os": "linux", "architecture": "s390x"}}
    attestation = {**other, "platform": {"os": "unknown", "architecture": "unknown"}}
    inner = layout.blob(json.dumps({"manifests": [other, mine, attestation]}).encode())

    image = take(files=oci.index(layout, inner))

    assert os.listdir(image.root) == ["hello"]


def test_a_digest_may_be_sha512(take: Any):
    layout = Layout([HELLO])
    layers = [layout.blob(HELLO, "sha512")]
    document = {"config": layout.blob(layout.configuration), "layers": layers}

    assert take(files=oci.index(layout, layout.blob(json.dumps(document).encode(), "sha512")))


# -- layers


def test_later_layers_change_and_take_away(take: Any):
    root = take(
        layer(
            folder("a"),
            Entry("a/one", "1"),
            Entry("a/two", "2"),
            Entry("b", "file"),
            folder("c"),
            Entry("c/x"),
        ),
        layer(Entry("a/.wh.one"), Entry("a/three", "3"), folder("b"), Entry("b/in"), Entry(".wh.c")),
    ).root

    assert sorted(os.listdir(root)) == ["a", "b"]
    assert sorted(os.listdir(root / "a")) == ["three", "two"]
    assert os.listdir(root / "b") == ["in"]


@pytest.mark.parametrize("early", [True, False])
def test_an_opaque_folder_hides_lower_layers_only_wherever_the_layer_says_so(take: Any, early: bool):
    mark, new = [Entry("a/.wh..wh..opq")], [folder("a"), Entry("a/new"), folder("a/sub"), Entry("a/sub/new")]

    root = take(
        layer(folder("a"), Entry("a/old"), folder("a/sub"), Entry("a/sub/old")),
        layer(*(mark + new if early else new + mark)),
    ).root

    assert sorted(os.listdir(root / "a")) == ["new", "sub"]
    assert os.listdir(root / "a/sub") == ["new"]


def test_links_of_lower_layers_lead_inside(take: Any):
    root = take(
        layer(folder("usr/lib"), link("lib", "usr/lib"), link("abs", "/usr"), link("up", "../../../usr")),
        layer(Entry("lib/one"), Entry("abs/two"), Entry("up/three"), copy("four", "lib/one")),
    ).root

    assert (root / "lib").is_symlink()
    assert sorted(os.listdir(root / "usr")) == ["lib", "three", "two"]
    assert (root / "usr/lib/one").samefile(root / "four")


def test_a_file_replaces_a_link_rather_than_what_it_leads_to(take: Any):
    root = take(layer(Entry("real", "old"), link("name", "real")), layer(Entry("name", "new"))).root

    assert ((root / "real").read_text(), (root / "name").read_text()) == ("old", "new")


def test_folders_that_were_replaced_are_not_taken_for_the_new_ones(take: Any):
    root = take(
        layer(Entry("a/b/one"), folder("other")),
        layer(Entry("a/b/two"), Entry(".wh.a"), link("a", "other"), Entry("a/b/three")),
    ).root

    assert (root / "other/b/three").exists()


def test_times_stay_since_compiled_python_is_compared_by_them(take: Any):
    assert (take(HELLO).root / "hello").stat().st_mtime == 1_000_000_000


def test_devices_are_left_out_and_no_file_gives_power(take: Any):
    root = take(
        layer(
            Entry("dev/null", type=tarfile.CHRTYPE),
            Entry("pipe", type=tarfile.FIFOTYPE),
            Entry("bin/su", "x", mode=0o6755),
        )
    ).root

    assert sorted(os.listdir(root)) == ["bin", "dev"]
    assert os.listdir(root / "dev") == []
    assert stat.S_IMODE((root / "bin/su").stat().st_mode) == 0o755


@pytest.mark.root
def test_files_keep_their_owners_and_what_the_user_may_read_all_may(take: Any):
    passwd = "root:x:0:0::/:/bin/sh\napp:x:70:71::/:/bin/sh\n"
    root = take(
        layer(
            Entry("etc/passwd", passwd),
            Entry("own", mode=0o600, uid=70),
            Entry("group", mode=0o640, gid=71),
            Entry("roots", mode=0o600),
            folder("home", mode=0o700, uid=70),
        ),
        User="app",
    ).root

    assert (root / "own").stat().st_uid == 70
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("own", "group", "roots", "home")}
    assert modes == {"own": 0o604, "group": 0o644, "roots": 0o600, "home": 0o705}


def test_what_root_may_read_all_may_where_the_image_names_no_user(take: Any):
    assert stat.S_IMODE((take(layer(Entry("roots", mode=0o700))).root / "roots").stat().st_mode) == 0o705


# -- those who mean harm


@pytest.mark.parametrize(
    "entries",
    [
        [Entry("../outside/new")],
        [Entry("a/../../outside/new")],
        [link("a", "LOOP"), link("LOOP", "a"), Entry("a/new")],
        [Entry("file"), Entry("file/new")],
        [copy("new", "../outside/kept")],
        [copy("new", "OUTSIDE/kept")],
        [copy("new", "nothing")],
        [Entry(".wh...")],
        [Entry(".wh..")],
        [Entry(".wh.")],
        [Entry("../outside/.wh.kept")],
        [Entry("/".join("a" * 300))],
        [Entry("a" * 3000)],
        [Entry("a" * 300)],
        [link("a", "")],
        [Entry("sparse", type=tarfile.GNUTYPE_SPARSE)],
    ],
    ids=lambda entries: " ".join(entry.name[:20] for entry in entries),
)
def test_layers_that_lead_outside_or_nowhere_are_refused(refuse: Any, outside: Path, entries: list[Entry]):
    for entry in entries:
        entry.target = entry.target.replace("OUTSIDE", str(outside))

    refuse(layer(*entries))

    assert os.listdir(outside) == ["kept"]


def test_links_that_lead_outside_are_followed_inside(take: Any, outside: Path):
    target = str(outside)
    root = take(
        layer(link("way", target), link("up", "../../outside")),
        layer(
            Entry("way/new"),
            Entry("way/.wh.kept"),
            Entry("way/.wh..wh..opq"),
            Entry("up/new"),
            folder("way/sub"),
        ),
    ).root

    assert os.listdir(outside) == ["kept"]
    assert (root / target.lstrip("/") / "new").exists()


def test_a_hard_link_to_a_link_is_no_way_out(take: Any, outside: Path):
    take(
        layer(link("way", str(outside / "kept")), copy("also", "way")),
        layer(Entry("also", "changed", mode=0o777)),
    )

    assert (outside / "kept").read_text() == "kept"
    assert stat.S_IMODE((outside / "kept").stat().st_mode) != 0o777


@pytest.mark.parametrize("part", ["layer", "manifest", "config"])
def test_what_is_not_what_its_digest_says_is_refused(refuse: Any, part: str):
    layout = Layout([HELLO])
    files = layout.files()
    manifest = json.loads(files["index.json"])["manifests"][0]
    document = json.loads(files[path_of(manifest)])
    changed = {"layer": document["layers"][0], "manifest": manifest, "config": document["config"]}[part]
    content = files[path_of(changed)]
    files[path_of(changed)] = gzip.compress(layer(Entry("evil"))) if part == "layer" else content + b" "

    assert "is not what its digest says" in refuse(files=files)


def test_a_layer_of_another_image_is_refused(refuse: Any):
    layout = Layout([HELLO])
    other = layout.blob(gzip.compress(layer(Entry("evil"))))
    document = {"config": layout.blob(layout.configuration), "layers": [other]}

    assert "is not what its digest says" in refuse(
        files=oci.index(layout, layout.blob(json.dumps(document).encode()))
    )


@pytest.mark.parametrize(
    "bomb",
    [
        layer(Entry("zeros", bytes(LIMIT + 1))),
        layer(*(Entry(f"{number}", bytes(LIMIT // 8)) for number in range(9))),
    ],
)
def test_bombs_are_refused_before_they_fill_the_disk(refuse: Any, bomb: bytes):
    assert "system.max_image" in refuse(bomb)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_layer_that_is_cut_off_is_refused(refuse: Any, compression: str):
    require(compression != "zstd" or shutil.which("zstd"), "zstd (apt-get install zstd)")
    layout = Layout([layer(Entry("random", os.urandom(100_000)))], compression=compression)
    packed = oci.compressed(layout.layers[0], compression)
    cut = layout.blob(packed[: len(packed) // 2])
    document = {"config": layout.blob(layout.configuration), "layers": [cut]}

    refuse(files=oci.index(layout, layout.blob(json.dumps(document).encode())))


def test_an_archive_that_is_cut_off_is_refused(refuse: Any, images: Images, tmp_path: Path):
    path = archive(tmp_path / "image.tar", Layout([HELLO]).files())
    os.truncate(path, path.stat().st_size // 3)

    with pytest.raises(Invalid, match="cut off"):
        import_image(images, "test", path, "", LIMIT)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"something": b""}, "neither index.json nor manifest.json"),
        ({"index.json": b"{"}, "not JSON"),
        ({"index.json": b"[" * 100_000}, "not JSON"),
        ({"index.json": b'{"manifests": 1}'}, "no list"),
        ({"index.json": b'{"manifests": []}'}, "it has nothing"),
        ({"index.json": b'{"manifests": [{"digest": "sha256:../../etc/passwd"}]}'}, "no digest"),
        ({"index.json": b'{"manifests": [{"digest": "md5:%s"}]}' % (b"0" * 32)}, "no digest"),
        ({"index.json": b'{"manifests": [{"digest": "sha256:%s"}]}' % (b"0" * 64)}, "lacks its part"),
        ({"manifest.json": b"[]"}, "save one"),
        ({"manifest.json": b'[{"Config": "../../etc/passwd", "Layers": []}]'}, "not named after"),
        (Layout([HELLO], architecture="s390x").files(), "it is for linux on s390x"),
        (Layout([HELLO], {"Env": ["NOTHING"]}).files(), "NAME=VALUE"),
        (Layout([HELLO], {"Entrypoint": "sh"}).files(), "no list of texts"),
        (Layout([HELLO], {"User": "nobody-here"}).files(), "whom its /etc/passwd does not have"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_image_of_this_machine_says_why(refuse: Any, files: dict[str, bytes], says: str):
    assert says in refuse(files=files)


def test_several_images_in_one_archive_are_refused(refuse: Any):
    layout = Layout([HELLO])
    first = layout.manifest()
    layout.layers = [layer(Entry("other"))]

    assert "save one" in refuse(files=oci.index(layout, first, layout.manifest()))


def test_a_folder_does_not_lend_files_of_this_machine(images: Images, tmp_path: Path):
    secret = tmp_path / "secret"
    secret.write_bytes(b'{"manifests": []}')
    (tmp_path / "image").mkdir()
    (tmp_path / "image/index.json").symlink_to(secret)

    with pytest.raises(Invalid, match="leads out of its folder"):
        import_image(images, "test", tmp_path / "image", "", LIMIT)


def path_of(descriptor: dict[str, Any]) -> str:
    return f"blobs/{descriptor['digest'].replace(':', '/')}"
