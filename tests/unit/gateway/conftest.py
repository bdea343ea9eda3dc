import pytest

from martlet.cluster.authority import Authority, new_request
from martlet.cluster.identity import Identity
from martlet.cluster.joining import begin
from martlet.gateway import waiting_room
from tests.unit.gateway.machines import OWN
from tests.unit.http.conftest import serving  # noqa: F401


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(waiting_room, "PATIENCE", 10 * waiting_room.EVERY)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Returns the identity of a machine by the name of its node."""
    first = Identity(tmp_path_factory.mktemp("cluster"))
    begin(first, OWN)

    def identity(name):
        folder = tmp_path_factory.mktemp(name)
        key, request = new_request(name)
        other = Identity(folder)
        other.write(other.authority, first.authority.read_bytes())
        other.write(other.certificate, Authority.of(first).sign(request))
        other.write(other.key, key)
        return other

    identity.first = first
    return identity
