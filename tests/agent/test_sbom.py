# SPDX-License-Identifier: MIT
"""The SBOM of a release: valid, complete, reproducible, and right for one archive only."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

ROOT = Path(__file__).resolve().parents[2]


def run(script: str, *arguments: object, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    words = ["/usr/bin/python3", "-I", str(root / "agent" / script), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)


def build(output: Path) -> Path:
    """The archive of this checkout, with its SBOM beside it."""
    done = run("build_release.py", "--output", output)
    assert done.returncode == 0, done.stderr
    archive = Path(json.loads(done.stdout)["path"])
    done = run("build_sbom.py", archive)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{sbom_of(archive)}\n"
    return archive


def sbom_of(archive: Path) -> Path:
    return archive.with_name(archive.name.replace(".tar.gz", ".cdx.json"))


@pytest.fixture(name="made", scope="module")
def fixture_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("made"))


@pytest.fixture(name="archive")
def fixture_archive(made: Path, tmp_path: Path) -> Path:
    """A copy for one test, with its SBOM."""
    for path in (made, sbom_of(made)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / made.name


def read(archive: Path) -> dict[str, Any]:
    return json.loads(sbom_of(archive).read_text())  # type: ignore[no-any-return]


def of_type(bom: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return [component for component in bom["components"] if component["type"] == kind]


@pytest.mark.slow
def test_it_follows_the_schema_of_cyclonedx(made: Path) -> None:
    assert read(made)["specVersion"] == SchemaVersion.V1_6.to_version()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(sbom_of(made).read_text()) is None
    references = [component["bom-ref"] for component in read(made)["components"]]
    assert len(set(references)) == len(references)
    (needs,) = read(made)["dependencies"]
    assert needs["ref"] == read(made)["metadata"]["component"]["bom-ref"]
    assert set(needs["dependsOn"]) == {component["bom-ref"] for component in of_type(read(made), "library")}


def test_it_names_the_archive(made: Path) -> None:
    component = read(made)["metadata"]["component"]
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    assert made.name == f"xdp-gossip-{component['version']}.tar.gz"
    assert component["hashes"] == [{"alg": "SHA-256", "content": digest}]
    assert PackageURL.from_string(component["purl"]).qualifiers == {"checksum": f"sha256:{digest}"}
    assert component["licenses"] == [{"expression": "MIT AND (MIT OR GPL-2.0-only)"}]
    serial = uuid.UUID(read(made)["serialNumber"])
    assert (serial.version, serial) == (5, uuid.uuid5(uuid.NAMESPACE_URL, component["purl"]))


def test_it_names_each_file_of_the_archive_and_no_other(made: Path) -> None:
    with tarfile.open(made) as tar:
        held = {
            member.name: hashlib.sha256(tar.extractfile(member).read()).hexdigest()  # type: ignore[union-attr]
            for member in tar
            if member.isfile()
        }
    listed = of_type(read(made), "file")
    assert [component["name"] for component in listed] == sorted(held)
    assert {component["name"]: component["hashes"][0]["content"] for component in listed} == held
    assert all(len(component["hashes"]) == 1 for component in listed)


def test_each_file_has_the_licence_that_it_names(made: Path) -> None:
    licences = {component["name"]: component.get("licenses") for component in of_type(read(made), "file")}
    assert licences["bpf/dataplane.c"] == [{"expression": "MIT OR GPL-2.0-only"}]
    assert licences["agent/xdp_gossip/__init__.py"] == licences["VERSION"] == [{"license": {"id": "MIT"}}]
    assert {name for name, licence in licences.items() if licence is None} == {
        f"LICENSES/{path.name}" for path in (ROOT / "LICENSES").iterdir()
    }


def test_it_names_the_packages_of_the_role(made: Path) -> None:
    names = yaml.safe_load((ROOT / "roles/agent/vars/main.yml").read_text())["__xdp_gossip_package_names"]
    scopes = {"packages": "required", "rendering": "optional", "dataplane": "optional", "compiling": "optional"}
    expected = {
        (system, name, scopes[group])
        for system, lists in {**names["families"], **names["releases"]}.items()
        for group, packages in lists.items()
        for name in packages
        if group != "query"
    }
    found = of_type(read(made), "library")
    assert {
        (component["properties"][0]["value"], component["name"], component["scope"]) for component in found
    } == expected
    assert len(found) == len(expected) > 20
    urls = {component["purl"] for component in found if "purl" in component}
    assert urls >= {"pkg:deb/debian/python3-aiohttp", "pkg:deb/ubuntu/libbpf0"}
    assert all(PackageURL.from_string(url).to_string() == url for url in urls)


@pytest.mark.slow
def test_two_builds_are_the_same_byte_by_byte(made: Path, tmp_path: Path) -> None:
    other = build(tmp_path)
    os.utime(other, (1, 1))
    assert run("build_sbom.py", other).returncode == 0
    assert sbom_of(other).read_bytes() == sbom_of(made).read_bytes()


def test_it_is_right_for_its_archive(archive: Path) -> None:
    done = run("build_sbom.py", "--check", archive)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_a_changed_byte_of_the_archive_is_found(archive: Path, place: float) -> None:
    before = hashlib.sha256(archive.read_bytes()).hexdigest()
    content = bytearray(archive.read_bytes())
    content[int(len(content) * place)] ^= 1
    archive.write_bytes(content)
    done = run("build_sbom.py", "--check", archive)
    assert done.returncode == 1
    assert f"expected the SBOM of {archive.name} with SHA-256 {hashlib.sha256(content).hexdigest()}, got {before}" in (
        done.stderr
    )


def drop_a_file(bom: dict[str, Any]) -> None:
    del bom["components"][3]


def add_a_file(bom: dict[str, Any]) -> None:
    bom["components"].insert(0, {**bom["components"][0], "name": "bin/extra", "bom-ref": "file:bin/extra"})


def repeat_a_file(bom: dict[str, Any]) -> None:
    bom["components"].insert(0, bom["components"][0])


def change_a_digest(bom: dict[str, Any]) -> None:
    bom["components"][0]["hashes"][0]["content"] = "0" * 64


def change_a_licence(bom: dict[str, Any]) -> None:
    bom["components"][-30]["licenses"] = [{"license": {"id": "0BSD"}}]


def change_the_serial_number(bom: dict[str, Any]) -> None:
    bom["serialNumber"] = f"urn:uuid:{uuid.uuid4()}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_a_file, "got another list: "),
        (add_a_file, "got another list: bin/extra"),
        (repeat_a_file, "got another list: a file that is named twice"),
        (change_a_digest, "got another list: LICENSES/GPL-3.0-or-later.txt"),
        (change_a_licence, "got another value: components"),
        (change_the_serial_number, "got another value: serialNumber"),
        (dict.clear, "expected the SBOM of a release: KeyError"),
    ],
)
def test_a_changed_sbom_is_found(archive: Path, change: Callable[[dict[str, Any]], None], message: str) -> None:
    bom = read(archive)
    change(bom)
    sbom_of(archive).write_text(json.dumps(bom))
    done = run("build_sbom.py", "--check", archive)
    assert done.returncode == 1
    assert message in done.stderr


def test_what_cannot_be_described_is_an_error(archive: Path, tmp_path: Path) -> None:
    role = tmp_path / "roles/agent/vars/main.yml"
    role.parent.mkdir(parents=True)
    assert "main.yml: expected a readable file, got" in run("build_sbom.py", archive, "--root", tmp_path / "no").stderr
    for text, message in (
        ("---\n", "expected the key __xdp_gossip_package_names, found none"),
        ("__xdp_gossip_package_names:\n  families: {}\n", "expected families and releases in JSON"),
        (
            '__xdp_gossip_package_names: {"families": {}}\n',
            "expected families and releases in JSON: KeyError('releases')",
        ),
    ):
        role.write_text(text)
        done = run("build_sbom.py", archive, "--root", tmp_path)
        assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    other = archive.with_name("xdp-gossip-9.9.9.tar.gz")
    other.write_bytes(archive.read_bytes())
    assert "in the name" in run("build_sbom.py", other).stderr
    other.write_bytes(b"no archive")
    assert "expected a release archive: " in run("build_sbom.py", other).stderr
    assert not sbom_of(other).exists()
    assert "expected a release archive xdp-gossip-VERSION" in run("build_sbom.py", tmp_path / "a.zip").stderr
