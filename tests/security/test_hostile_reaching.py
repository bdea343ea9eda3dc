"""A function reaches neither the platform's sockets, nor the host's, nor its neighbours'; paths and keys are in
test_hostile_requests.py, the kinds of network in tests/unit/drivers/test_network.py."""

import os
import socket

import pytest

from tests.ports import free_port


@pytest.fixture(scope="module")
def reaching(hostile):
    return hostile("reaching", network="none")


@pytest.fixture(scope="module")
def other(hostile):
    return hostile("reaching", name="reaching-too", network="none")


def test_the_sockets_of_the_platform_are_not_there(reaching, platform):
    run = platform.settings.run_directory
    sockets = [path for path in run.rglob("*") if path.is_socket()]
    assert {"control.sock", "lane-0.sock", "lane-1.sock", "sock"} <= {path.name for path in sockets}
    paths = [str(path) for path in sockets] + [f"/proc/1/root{path}" for path in sockets]
    for path, outcome in reaching.attempt("connect_to_files", *paths, "/run/docker.sock").items():
        assert outcome in {"ENOENT", "EACCES"}, path


def test_the_socket_that_it_is_served_by_has_no_name_inside(reaching):
    assert set(reaching.attempt("own_socket").values()) <= {"ENOENT", "EACCES"}


def test_no_service_of_the_host_is_reached(reaching, platform):
    with socket.create_server(("127.0.0.1", 0)) as service, socket.socket(socket.AF_UNIX) as abstract:
        name = f"martlet-hostile-test-{os.getpid()}"
        abstract.bind(f"\0{name}")
        abstract.listen()
        port = service.getsockname()[1]
        addresses = [
            [host, number]
            for host in ("127.0.0.1", "0.0.0.0", "localhost")
            for number in (port, platform.port)
        ]
        addresses += [
            ["::1", port],
            ["169.254.169.254", 80],
            ["fd00:ec2::254", 80],
            [socket.gethostname(), port],
        ]
        for address, outcome in reaching.attempt("connect", *addresses).items():
            assert outcome != "connected", address
        for path, outcome in reaching.attempt("connect_to_files", f"@{name}").items():
            assert outcome == "ECONNREFUSED", path
        service.setblocking(False)
        with pytest.raises(BlockingIOError):
            service.accept()


def test_no_packet_leaves(reaching):
    for address, outcome in reaching.attempt(
        "send_datagrams", ["169.254.169.254", 80], ["192.0.2.1", 53]
    ).items():
        assert outcome in {"ENETUNREACH", "EHOSTUNREACH", "EPERM"}, address
    assert reaching.attempt("interfaces") == ["lo"]


def test_functions_do_not_reach_each_other(reaching, other):
    port = reaching.attempt("serve", free_port())
    assert reaching.attempt("connect", ["127.0.0.1", port]) == {f"127.0.0.1:{port}": "connected"}
    assert other.attempt("connect", ["127.0.0.1", port]) == {f"127.0.0.1:{port}": "ECONNREFUSED"}
    assert other.attempt("serve", port) == port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
