"""What is in an image: its packages, and what is known to be wrong with them where a scanner is installed."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import orjson
from pydantic import Field

from martlet.images.image import Image
from martlet.images.inside import Inside
from martlet.model import Frozen
from martlet.sandbox.lifeline import die_with_parent

_DPKG, _DPKG_PARTS = "/var/lib/dpkg/status", "/var/lib/dpkg/status.d"
_APK = "/lib/apk/db/installed"
_RPM = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")
_SECONDS = 600.0
NO_SCANNER = "there is no scanner on this machine: install trivy or grype to be told of known vulnerabilities"


class ImagePackage(Frozen):
    """A package in an image."""

    name: str
    version: str
    kind: str = Field(description="What has installed it: `dpkg` or `apk`.")


class Vulnerability(Frozen):
    """Something known to be wrong with a package, in the words of the scanner."""

    id: str
    severity: str
    package: str
    version: str
    fixed: str | None = Field(description="The version that mends it; null where there is none.")


class ImageScan(Frozen):
    """What is in an image."""

    packages: tuple[ImagePackage, ...]
    scanner: str | None = Field(description="What has looked for vulnerabilities; null: nothing has.")
    vulnerabilities: tuple[Vulnerability, ...] | None = Field(
        description="What it has found; null: nothing looked."
    )
    notes: tuple[str, ...] = Field(description="What could not be said, and why.")


def scan(image: Image) -> ImageScan:
    """Lists what is in an image; a scanner may take minutes."""
    inside, notes = Inside(image.root), []
    packages = [*_of_dpkg(inside), *_of_apk(inside)]
    if any(inside.names(folder) for folder in _RPM):
        notes.append("its packages are those of rpm, whose database is not read here: a scanner lists them")
    elif not packages:
        notes.append("it has no list of packages: a program on its own, say")
    scanner, found = None, None
    for name, (arguments, read) in _SCANNERS.items():
        program = shutil.which(name)
        if program is None:
            continue
        try:
            report = _run([program, *(word.format(root=image.root) for word in arguments)])
            scanner, found = name, tuple(read(report))
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            subprocess.SubprocessError,
        ) as fault:
            said = fault.stderr if isinstance(fault, subprocess.CalledProcessError) else str(fault)
            notes.append(f"{name} could not scan it: {str(said).strip()[-300:]}")
        break
    else:
        notes.append(NO_SCANNER)
    return ImageScan(packages=tuple(packages), scanner=scanner, vulnerabilities=found, notes=tuple(notes))


def _of_dpkg(inside: Inside) -> Iterator[ImagePackage]:
    texts = [inside.text(_DPKG)]
    texts += [inside.text(f"{_DPKG_PARTS}/{name}") for name in inside.names(_DPKG_PARTS)]  # distroless images
    for text in filter(None, texts):
        for entry in _stanzas(text, ": "):
            if "Package" in entry and entry.get("Status", "installed").endswith("installed"):
                yield ImagePackage(name=entry["Package"], version=entry.get("Version", ""), kind="dpkg")


def _of_apk(inside: Inside) -> Iterator[ImagePackage]:
    for entry in _stanzas(inside.text(_APK) or "", ":"):
        if "P" in entry:
            yield ImagePackage(name=entry["P"], version=entry.get("V", ""), kind="apk")


def _stanzas(text: str, separator: str) -> Iterator[dict[str, str]]:
    for stanza in text.split("\n\n"):
        lines = (
            line.partition(separator) for line in stanza.splitlines() if not line.startswith((" ", "\t"))
        )
        yield {key: value for key, found, value in lines if found}


def _run(command: list[str]) -> Any:
    done = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        preexec_fn=partial(die_with_parent),
        timeout=_SECONDS,
        check=True,
    )
    return orjson.loads(done.stdout)


def _of_trivy(report: Mapping[str, Any]) -> Iterator[Vulnerability]:
    for result in report.get("Results") or []:
        for found in result.get("Vulnerabilities") or []:
            yield Vulnerability(
                id=found["VulnerabilityID"],
                severity=found.get("Severity", "UNKNOWN").lower(),
                package=found["PkgName"],
                version=found["InstalledVersion"],
                fixed=found.get("FixedVersion") or None,
            )


def _of_grype(report: Mapping[str, Any]) -> Iterator[Vulnerability]:
    for match in report.get("matches") or []:
        found, package = match["vulnerability"], match["artifact"]
        yield Vulnerability(
            id=found["id"],
            severity=found.get("severity", "Unknown").lower(),
            package=package["name"],
            version=package["version"],
            fixed=", ".join((found.get("fix") or {}).get("versions") or []) or None,
        )


_SCANNERS: Mapping[str, tuple[tuple[str, ...], Callable[[Any], Iterator[Vulnerability]]]] = {
    "trivy": (("rootfs", "--quiet", "--scanners=vuln", "--format=json", "{root}"), _of_trivy),
    "grype": (("dir:{root}", "--quiet", "--output=json"), _of_grype),
}
