from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from martlet.bucket import Bucket, parse_bucket
from martlet.cli.app import app
from martlet.config import load_settings
from martlet.errors import Invalid
from martlet.settings import Settings

FULL = "s3://packages/of/martlet?endpoint=http://10.0.0.5:9000&region=eu-1&credentials=/etc/martlet.s3"


@pytest.mark.parametrize(
    ("text", "bucket"),
    [
        ("s3://packages", Bucket("packages")),
        ("s3://my.packages-2/a/b.c", Bucket("my.packages-2", "a/b.c")),
        (
            FULL,
            Bucket("packages", "of/martlet", "http://10.0.0.5:9000", "eu-1", Path("/etc/martlet.s3")),
        ),
        (
            "s3://packages?endpoint=https://[::1]&credentials=/keys of mine",
            Bucket("packages", endpoint="https://[::1]", credentials=Path("/keys of mine")),
        ),
    ],
)
def test_an_address_is_read_and_written(text: str, bucket: Bucket) -> None:
    assert parse_bucket(text) == bucket
    assert parse_bucket(str(bucket)) == bucket


@pytest.mark.parametrize("ending", ["/", "/?region=eu-1"])
def test_a_slash_at_the_end_is_no_prefix(ending: str) -> None:
    assert parse_bucket(f"s3://packages{ending}").prefix == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "write s3://BUCKET"),
        ("/var/lib/blobs", "write s3://BUCKET"),
        ("https://s3.example.org/packages", "write s3://BUCKET"),
        (3, "write s3://BUCKET"),
        ("s3://", "name of the bucket"),
        ("s3:///prefix", "name of the bucket"),
        ("s3://Packages", "name of the bucket"),
        ("s3://a..b", "name of the bucket"),
        ("s3://packages:9000", "name of the bucket"),
        ("s3://packages/a//b", "prefix"),
        ("s3://packages/a/../b", "prefix"),
        ("s3://packages/a b", "prefix"),
        ("s3://packages#now", "fragment"),
        ("s3://packages?region", "NAME=VALUE"),
        ("s3://packages?zone=1", "no parameter 'zone'; known are endpoint, region, credentials"),
        ("s3://packages?region=a&region=b", "region is given more than once"),
        ("s3://packages?region=", "region has"),
        ("s3://packages?endpoint=10.0.0.5:9000", "endpoint is http"),
        ("s3://packages?endpoint=http://", "endpoint is http"),
        ("s3://packages?endpoint=http://host:port", "endpoint is http"),
        ("s3://packages?endpoint=http://host/path", "endpoint is http"),
        ("s3://packages?credentials=keys", "absolute path"),
    ],
)
def test_what_is_no_address_is_refused_with_what_to_write(text: str, reason: str) -> None:
    with pytest.raises(Invalid, match=f"^system.blobs: .*{reason}") as caught:
        load_settings(None, {}, {"blobs": text})
    assert caught.value.field == "system.blobs"


@pytest.mark.parametrize(
    "text",
    [
        "s3://key:swordfish@packages",
        "s3://packages?endpoint=http://key:swordfish@host",
        "s3://packages?secret_access_key=swordfish",
        "s3://packages?region=swordfish!",
        "s3://packages?credentials=swordfish",
        "s3://packages/swordfish%20",
    ],
)
def test_no_refusal_repeats_what_may_be_a_key(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        load_settings(None, {}, {"blobs": text})
    assert "swordfish" not in str(caught.value)


def test_settings_hold_no_keys_so_that_they_may_be_shown(tmp_path: Path) -> None:
    file = tmp_path / "faas.yaml"
    file.write_text(yaml.safe_dump({"system": {"blobs": FULL}}))
    environment = {"AWS_ACCESS_KEY_ID": "the-key", "AWS_SECRET_ACCESS_KEY": "the-secret"}
    shown = CliRunner().invoke(app, ["config", "show", "-c", str(file)], env=environment)
    assert yaml.safe_load(shown.stdout)["system"]["blobs"] == FULL
    assert "the-key" not in shown.stdout
    assert "the-secret" not in shown.stdout


def test_settings_reach_the_processes_of_the_platform_as_they_are() -> None:
    settings = load_settings(None, {}, {"blobs": FULL})
    assert Settings.model_validate_json(settings.model_dump_json()) == settings
