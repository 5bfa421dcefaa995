#!/usr/bin/python3 -I
# SPDX-License-Identifier: MIT
"""Write the SBOM of a release archive: ``xdp-gossip-<version>.cdx.json`` beside the archive, or check that SBOM.

The SBOM (software bill of materials) is a CycloneDX 1.6 document in JSON. It names the archive, every file of the
archive, and the distribution packages that the agent uses at run time, each with what is known of its licence and its
SHA-256. The SBOM contains neither a time nor a random number: the same archive and checkout always give the same bytes.
This script uses only the standard library.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import sys
import tarfile
import uuid
from pathlib import Path
from typing import Any

SPECIFICATION = "1.6"
NAME = "xdp-gossip"
SUPPLIER = "XDP Gossip contributors"

#: File of the role with the names of the packages, and the key whose value is JSON.
PACKAGES = "roles/agent/vars/main.yml"
PACKAGES_KEY = "__xdp_gossip_package_names"

#: Lists of packages in :data:`PACKAGES`: name of the list -> (scope in CycloneDX, what needs the packages).
GROUPS = {
    "packages": ("required", "agent"),
    "rendering": ("optional", "templates"),
    "dataplane": ("optional", "dataplane"),
    "compiling": ("optional", "dataplane without a program container"),
}

#: Beginning of the package URL by distribution. On Red Hat, the packages come from several repositories, so the role's
#: list does not determine a package URL.
PACKAGE_URLS = {"Debian": "pkg:deb/debian", "Ubuntu": "pkg:deb/ubuntu"}

#: Licence of the files in the archive that name none (LICENSE: "agent/ tests/ .ci/ and everything else").
DEFAULT_LICENCE = "MIT"
#: Directory with the texts of the licences. The texts themselves have no licence.
LICENCE_TEXTS = "LICENSES/"

_ARCHIVE = re.compile(r"xdp-gossip-([0-9][^/]*)\.tar\.gz\Z")
_ID = r"[A-Za-z0-9.+-]+"
_LICENCE = re.compile(rf"SPDX-License-Identifier: ({_ID}(?: (?:AND|OR|WITH) {_ID})*)")
#: Bytes at the beginning of a file in which the licence is searched for.
_HEAD = 1500
#: Differences that one error message names at most.
_NAMED = 5


class SbomError(Exception):
    """Raised if an SBOM cannot be written, or does not describe its archive. The message states the reason."""


def sbom_path(archive: Path) -> Path:
    """Return the path of an archive's SBOM. Raises :class:`SbomError` if ``archive`` has another name."""
    found = _ARCHIVE.match(archive.name)
    if not found:
        raise SbomError(f"{archive}: expected a release archive {NAME}-VERSION.tar.gz")
    return archive.with_name(f"{NAME}-{found[1]}.cdx.json")


def read_packages(root: Path) -> dict[str, dict[str, list[str]]]:
    """Return the packages of the agent: system -> list of :data:`GROUPS` -> names of packages.

    A system is a distribution family such as ``Debian``, or a release such as ``Ubuntu-22``, which has only those lists
    that differ from the lists of its family. Raises :class:`SbomError`.
    """
    path = root / PACKAGES
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SbomError(f"{path}: expected a readable file, got {error.strerror}") from None
    found = re.search(rf"^{PACKAGES_KEY}:\s*", text, re.MULTILINE)
    if not found:
        raise SbomError(f"{path}: expected the key {PACKAGES_KEY}, found none")
    try:
        value = json.JSONDecoder().raw_decode(text, found.end())[0]
        systems = {**value["families"], **value["releases"]}
        return {
            system: {group: [*lists[group]] for group in GROUPS if group in lists} for system, lists in systems.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SbomError(f"{path}: {PACKAGES_KEY}: expected families and releases in JSON: {error!r}") from None


def read_files(archive: bytes) -> dict[str, bytes]:
    """Return the files of an archive: path in the archive -> content. Raises :class:`SbomError`."""
    files = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                if member.isdir():
                    continue
                stream = tar.extractfile(member) if member.isfile() else None
                if stream is None or member.name in files:
                    raise SbomError(f"{member.name}: expected a regular file, once")
                files[member.name] = stream.read()
    except (OSError, EOFError, tarfile.TarError) as error:
        raise SbomError(f"expected a release archive: {error}") from None
    return files


def licence_of(name: str, content: bytes) -> str:
    """Return the licence of a file of the archive as an SPDX expression; empty for the text of a licence."""
    if name.startswith(LICENCE_TEXTS):
        return ""
    found = _LICENCE.search(str(content[:_HEAD], "utf-8", "replace"))
    return found[1] if found else DEFAULT_LICENCE


def _licences(expressions: set[str]) -> list[dict[str, Any]]:
    """Return CycloneDX's list of licences for something to which all of these SPDX expressions apply."""
    if not expressions:
        return []
    parts = sorted(expressions)
    if len(parts) == 1 and " " not in parts[0]:
        return [{"license": {"id": parts[0]}}]
    return [{"expression": " AND ".join(f"({part})" if " " in part and len(parts) > 1 else part for part in parts)}]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _hashes(content: bytes) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": _digest(content)}]


def _file(name: str, content: bytes) -> dict[str, Any]:
    component: dict[str, Any] = {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": _hashes(content)}
    if licence := licence_of(name, content):
        component["licenses"] = _licences({licence})
    return component


def _package(system: str, group: str, name: str) -> dict[str, Any]:
    scope, needed_for = GROUPS[group]
    component = {"type": "library", "bom-ref": f"package:{system}/{name}", "name": name, "scope": scope}
    if start := PACKAGE_URLS.get(system.partition("-")[0]):
        component["purl"] = f"{start}/{name}"
    properties = {"system": system, "needed-for": needed_for}
    return {
        **component,
        "properties": [{"name": f"{NAME}:{key}", "value": value} for key, value in properties.items()],
    }


def describe(archive: bytes, packages: dict[str, dict[str, list[str]]]) -> dict[str, Any]:
    """Return the SBOM of an archive, as the JSON object of CycloneDX. Raises :class:`SbomError`."""
    files = read_files(archive)
    try:
        version = str(files["VERSION"], "ascii").strip()
    except (KeyError, UnicodeError):
        raise SbomError("expected a release archive with the file VERSION, found none") from None
    purl = f"pkg:generic/{NAME}@{version}?checksum=sha256:{_digest(archive)}"
    needed = [
        _package(system, group, name)
        for system, lists in packages.items()
        for group, names in lists.items()
        for name in names
    ]
    licences = {licence_of(name, content) for name, content in files.items()} - {""}
    return {
        "$schema": f"http://cyclonedx.org/schema/bom-{SPECIFICATION}.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": SPECIFICATION,
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, purl)}",
        "version": 1,
        "metadata": {
            "tools": {"components": [{"type": "application", "name": "build_sbom.py", "version": version}]},
            "component": {
                "type": "application",
                "bom-ref": purl,
                "supplier": {"name": SUPPLIER},
                "name": NAME,
                "version": version,
                "hashes": _hashes(archive),
                "licenses": _licences(licences),
                "purl": purl,
            },
        },
        "components": [*(_file(name, files[name]) for name in sorted(files)), *needed],
        "dependencies": [{"ref": purl, "dependsOn": [component["bom-ref"] for component in needed]}],
    }


def write(archive: Path, root: Path) -> Path:
    """Write the SBOM of ``archive`` beside the archive, and return its path. ``root`` is a checkout.

    Raises :class:`SbomError` or ``OSError``.
    """
    path = sbom_path(archive)
    bom = describe(archive.read_bytes(), read_packages(root))
    if sbom_path(archive.with_name(f"{NAME}-{bom['metadata']['component']['version']}.tar.gz")) != path:
        raise SbomError(f"{archive}: expected version {bom['metadata']['component']['version']} in the name")
    path.write_text(json.dumps(bom, indent=2) + "\n", encoding="utf-8")
    return path


def check(archive: Path) -> None:
    """Compare the SBOM beside ``archive`` with the archive. The packages are not compared, as no archive names them.

    Raises :class:`SbomError` if they differ, or ``OSError``.
    """
    path = sbom_path(archive)
    content = archive.read_bytes()
    try:
        bom = json.loads(path.read_text(encoding="utf-8"))
        stated = bom["metadata"]["component"]
        components = bom["components"]
        digest = stated["hashes"][0]["content"]
        listed = [component for component in components if component["type"] == "file"]
        files = {component["name"]: component["hashes"][0]["content"] for component in listed}
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise SbomError(f"{path}: expected the SBOM of a release: {error!r}") from None
    if digest != _digest(content):
        raise SbomError(f"{path}: expected the SBOM of {archive.name} with SHA-256 {_digest(content)}, got {digest}")
    held = read_files(content)
    wrong = [name for name in files.keys() | held.keys() if name not in held or files.get(name) != _digest(held[name])]
    if wrong or len(listed) != len(files):
        names = ", ".join(sorted(wrong)[:_NAMED]) or "a file that is named twice"
        raise SbomError(f"{path}: expected each file of {archive.name} with its SHA-256, got another list: {names}")
    expected = describe(content, {})
    expected["components"] += components[len(listed) :]
    references = [component.get("bom-ref") for component in components[len(listed) :]]
    expected["dependencies"][0]["dependsOn"] = references
    if bom != expected:
        keys = ", ".join(key for key in {**expected, **bom} if bom.get(key) != expected.get(key))
        raise SbomError(f"{path}: expected what follows from {archive.name}, got another value: {keys}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 if the SBOM was written or is right, otherwise 1."""
    parser = argparse.ArgumentParser(description="Write the SBOM of an xdp-gossip release archive, beside the archive.")
    parser.add_argument("archive", type=Path, help="the release archive, xdp-gossip-VERSION.tar.gz")
    parser.add_argument("--check", action="store_true", help="compare the SBOM that is there with the archive")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(__file__).resolve().parent.parent,
        help="the checkout with the role's packages",
    )
    options = parser.parse_args(arguments)
    try:
        if options.check:
            check(options.archive)
            print(f"{sbom_path(options.archive)}: describes {options.archive.name}")
        else:
            print(write(options.archive, options.root))
    except (SbomError, OSError) as error:
        print(f"build_sbom: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
