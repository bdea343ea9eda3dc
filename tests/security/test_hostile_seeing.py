"""A function that looks around sees itself, the system's programs, and nothing else."""

import pytest

from tests.security.conftest import NEIGHBOUR_SECRETS

pytestmark = pytest.mark.engine("runc")

GUESTS_OWN = ["/home", "/var", "/run", "/boot", "/sys"]
"""What a guest has of its own, and nothing of the host's is in."""


@pytest.fixture(scope="module")
def seeing(hostile):
    return hostile("seeing")


def test_no_file_of_the_host_or_the_platform_can_be_read(seeing, platform, rung):
    data, run = platform.data, platform.settings.run_directory
    paths = [
        "/etc/shadow",
        "/etc/ssh",
        "/root/.bashrc",
        "/home",
        "/var",
        "/run",
        "/boot",
        data,
        data / "martlet.db",
        data / "admin.key",
        data / "packages",
        data / "blobs",
        data / "logs",
        run,
        run / "control.sock",
        platform.config,
    ]
    assert data.joinpath("martlet.db").exists()
    assert run.joinpath("control.sock").exists()
    through_proc = [f"/proc/1/root{path}" for path in paths] + [f"/proc/1/cwd/..{path}" for path in paths]
    own = GUESTS_OWN if rung == "microvm" else []
    allowed = {f"{start}{path}" for path in own for start in ("", "/proc/1/root", "/proc/1/cwd/..")}
    assert set(seeing.attempt("present", *map(str, paths), *through_proc)) <= allowed
    assert seeing.attempt("listing", "/sys") == []
    assert seeing.attempt("same_root")


def test_no_secret_of_a_neighbour_or_the_platform_lies_in_any_file(seeing):
    assert seeing.attempt("search_files", NEIGHBOUR_SECRETS) == []


def test_no_secret_of_a_neighbour_or_the_platform_lies_in_its_memory(seeing):
    """Cells are forked: what their zygote has read would be in each of them."""
    assert seeing.attempt("search_memory", NEIGHBOUR_SECRETS) == 0
    assert seeing.attempt("search_memory", "[s]earch_memory") > 0  # it does find what is there


def test_no_process_of_others_is_seen(seeing):
    assert seeing.attempt("search_processes", NEIGHBOUR_SECRETS) == []
    own = seeing.attempt("own_command_line")
    assert seeing.attempt("search_processes", "[z]ygote|[k]eeper|[i]nside|[s]andbox/init") == [own]


def test_no_package_but_its_own_is_there(seeing, platform):
    """They are mounted below one that covers them, which it has not the power to take away."""
    packages = {
        name: platform.client.get(f"/functions/{name}").json()["code"] for name in ("seeing", "neighbour")
    }
    assert all((platform.data / "packages" / package).exists() for package in packages.values())
    places = [f"/.packages/{package}" for package in packages.values()]
    assert seeing.attempt("present", "/function/handler.py", *places) == ["/function/handler.py"]


def test_nothing_is_mounted_but_what_the_sandbox_is_made_of(seeing, rung):
    own = ("/dependencies", "/run", "/sys") if rung == "microvm" else ()
    allowed = (
        "/",
        *own,
        "/.code",
        "/.martlet",
        "/.packages",
        "/.runtime",
        "/.sandbox",
        "/bin",
        "/dev",
        "/etc",
        "/function",
        "/lib",
        "/proc",
        "/sbin",
        "/sys",
        "/tmp",
        "/usr",
    )
    prefix = seeing.attempt("prefix")
    others = {place for place in seeing.attempt("mounts") if not place.startswith(allowed[1:])}
    assert others <= {"/", prefix}


def test_no_device_but_harmless_ones_is_there(seeing):
    devices = ("mem", "kmem", "port", "kmsg", "kvm", "fuse", "net/tun", "loop0", "sda", "vda", "tty", "ptmx")
    assert seeing.attempt("present", *(f"/dev/{device}" for device in devices)) == []


def test_the_kernel_tells_it_no_secrets(seeing):
    assert seeing.attempt("read", "/proc/kcore", "/proc/kmsg", "/proc/keys", "/proc/kpageflags") == []
    assert seeing.attempt("kernel_addresses") == 0
