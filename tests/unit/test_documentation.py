"""The documents tell the truth: nothing is undocumented, nothing generated is stale, no link is dead."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from martlet.cli.manifest import manifest_of
from martlet.settings import Settings
from martlet.validation import validated
from scripts.docs import endpoints
from scripts.docs.__main__ import PARTS, ROOT, documents, renewed
from scripts.docs.markdown import Undocumented, described

GUIDES = [
    *documents(),
    *sorted(ROOT.glob("docs/decisions/*.md")),
    *sorted(ROOT.glob("docs/languages/*.md")),
    *sorted(ROOT.glob("examples/*/README.md")),
]
API = ROOT / "docs/api.md"
LINK = re.compile(r"\[[^\]]*\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name(path: Path) -> str:
    """Returns a document's name for the report of a test."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("document", documents(), ids=name)
def test_settings_commands_endpoints_errors_and_metrics_are_documented_as_they_are(document):
    text = document.read_text()
    assert renewed(text) == text, "stale: run `make docs`"


def test_every_generated_part_stands_in_a_document():
    text = "".join(document.read_text() for document in documents())
    assert [part for part in PARTS if f"<!-- generated: {part} -->" not in text] == []


def test_what_has_no_description_cannot_be_documented():
    with pytest.raises(Undocumented, match=r"^system\.lanes has no description$"):
        described("  \n ", "system.lanes")


@pytest.mark.parametrize(("method", "path"), endpoints.requests())
def test_every_endpoint_has_an_example(method, path):
    pattern = re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))
    shown = [target for used, target in requests_shown() if used == method and re.fullmatch(pattern, target)]
    assert shown, f"docs/api.md shows no {method} {path}"


@pytest.mark.parametrize("document", GUIDES, ids=name)
def test_links_lead_somewhere(document):
    for target, anchor in LINK.findall(FENCE.sub("", document.read_text())):
        path = (document.parent / target).resolve() if target else document
        assert path.exists(), f"{target} does not exist"
        if anchor:
            assert anchor in anchors(path), f"{name(path)} has no heading #{anchor}"


@pytest.mark.parametrize("document", documents(), ids=name)
def test_configuration_examples_are_valid(document):
    for language, text in FENCE.findall(document.read_text()):
        example = yaml.safe_load(text) if language == "yaml" else {}
        if example.keys() & {"system", "functions"}:
            validated(Settings, example)
        elif "scrape_configs" not in example:
            manifest_of(example, name(document))


def anchors(document: Path) -> set[str]:
    """Returns what links to the headings of a document look like."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def requests_shown() -> Iterator[tuple[str, str]]:
    """Yields the method and the path of every request that docs/api.md makes with curl."""
    for command in re.findall(r"^\$ (curl .*?)(?=\n\$|\n```)", API.read_text(), re.MULTILINE | re.DOTALL):
        words = shlex.split(command)
        url = next(word for word in words if word.startswith("http"))
        implied = "PUT" if "-T" in words else "POST" if {"-d", "-F"} & set(words) else "GET"
        yield words[words.index("-X") + 1] if "-X" in words else implied, urlsplit(url).path
