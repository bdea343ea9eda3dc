"""Where queues are, as people write it, and what is never shown of it."""

from pathlib import Path

import pytest

from martlet.config import load_settings
from martlet.errors import Invalid
from martlet.queue_address import QUEUE_PASSWORD_VARIABLE, RedisAddress
from martlet.settings import Settings


@pytest.mark.parametrize(
    ("text", "address", "connection"),
    [
        ("redis://host", RedisAddress("host:6379"), "redis://host:6379/0"),
        ("redis://[::1]:7/", RedisAddress("[::1]:7"), "redis://[::1]:7/0"),
        ("redis://me@host/3", RedisAddress("host:6379", 3, user="me"), "redis://me@host:6379/3"),
        (
            "redis://me:p%40ss@host:1/2",
            RedisAddress("host:1", 2, user="me", password="p@ss"),
            "redis://me:p%40ss@host:1/2",
        ),
        (
            "rediss://:pass@host?ca=/etc/ca.pem",
            RedisAddress("host:6379", tls=True, ca="/etc/ca.pem", password="pass"),
            "rediss://:pass@host:6379/0?ssl_ca_certs=/etc/ca.pem",
        ),
    ],
)
def test_an_address_is_read_and_written(text: str, address: RedisAddress, connection: str) -> None:
    assert RedisAddress.parse(text) == address
    assert RedisAddress.parse(address.url(address.password)) == address
    assert address.connection() == connection


@pytest.mark.parametrize(
    "text",
    [
        "",
        "redis",
        "redis://",
        "http://host",
        "redis://host:0",
        "redis://host:99999",
        "redis://host/a",
        "redis://a b",
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write(text: str) -> None:
    with pytest.raises(Invalid, match=r"system\.queue: .*write sqlite, redis://") as refused:
        load_settings(environment={}, flags={"queue": text})
    assert refused.value.field == "system.queue"


def test_an_authority_takes_tls() -> None:
    with pytest.raises(Invalid, match="write rediss://"):
        load_settings(environment={}, flags={"queue": "redis://host?ca=/etc/ca.pem"})


def test_queues_are_on_this_machine_by_default() -> None:
    assert load_settings(environment={}).system.queue == "sqlite"


def test_a_password_is_masked_but_for_the_processes_of_the_platform() -> None:
    settings = load_settings(environment={}, flags={"queue": "redis://me:hidden@host"})
    assert "hidden" not in settings.model_dump_json() + repr(settings) + str(settings.system.queue)
    again = Settings.model_validate_json(settings.reveal())
    assert again.system.queue == settings.system.queue


def test_the_password_may_be_in_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "martlet.yaml"
    file.write_text("system: {queue: redis://me@host}")
    settings = load_settings(file, {QUEUE_PASSWORD_VARIABLE: "hidden"})
    assert settings.system.queue == RedisAddress("host:6379", user="me", password="hidden")


def test_a_wrong_address_is_refused_without_telling_its_password() -> None:
    with pytest.raises(Invalid) as refused:
        load_settings(environment={}, flags={"queue": "redis://me:hidden@host:port"})
    assert "hidden" not in str(refused.value)
