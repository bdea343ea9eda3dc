"""What a function asks the kernel for beyond ordinary work is refused, whatever the kernel itself would allow."""

import errno

import pytest

from tests.conftest import require
from tests.security.conftest import undisturbed

REFUSED = {"EPERM", "EACCES", "ENOSYS", "EROFS"}

pytestmark = pytest.mark.engine("runc")


@pytest.fixture(scope="module")
def kernel(hostile):
    return hostile("kernel")


@pytest.mark.parametrize("group", ["mounting", "identity", "machine", "broken before", "sockets"])
def test_the_kernel_refuses(kernel, platform, group):
    with undisturbed(platform):
        outcomes = kernel.attempt("try_all", group)
    assert {name: said for name, said in outcomes.items() if said not in REFUSED} == {}


def test_setuid_programs_run_as_the_function(kernel):
    users = kernel.attempt("run_setuid_programs")
    require(users, "a setuid program")
    assert users == [kernel.attempt("user")]


def test_no_network_device_can_be_changed(kernel):
    assert kernel.attempt("add_network_address") == errno.EPERM
