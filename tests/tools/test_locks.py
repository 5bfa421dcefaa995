# SPDX-License-Identifier: MIT
"""Every virtual environment is installed from a lock file: exact versions, each file by its hash."""

from __future__ import annotations

import base64
import hashlib
import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
CI = ROOT / ".ci"
sys.path.insert(0, str(CI))

from ansible_env import CORES  # noqa: E402

HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")
#: Packages with which the agent runs. Tests use Debian's.
AGENTS = {"aiohttp", "cryptography", "jinja2", "msgpack", "prometheus-client", "pynacl", "pyyaml", "yarl"}


def script() -> Any:
    """The program .ci/locks, as a module."""
    loader = importlib.machinery.SourceFileLoader("locks", str(CI / "locks"))
    spec = importlib.util.spec_from_loader("locks", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


LOCKS: dict[str, tuple[str, str]] = script().requirements()


def entries(text: str) -> dict[str, list[Requirement]]:
    """The packages of a lock file by name: with markers, a package can have several versions.

    Raises ``ValueError`` for a line that is no package with an exact version and hashes.
    """
    found: dict[str, list[Requirement]] = {}
    joined = re.sub(r" *\\\n *", " ", text)
    for line in joined.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        words, *hashes = re.split(r" (?=--hash=)", line)
        if not hashes or not all(HASH.fullmatch(word) for word in hashes):
            raise ValueError(f"expected a package with hashes, got {line[:80]!r}")
        package = Requirement(words)
        if [one.operator for one in package.specifier] != ["=="] or package.url or "*" in str(package.specifier):
            raise ValueError(f"expected an exact version, got {words!r}")
        found.setdefault(canonicalize_name(package.name), []).append(package)
    return found


def asked(text: str) -> list[Requirement]:
    """The packages of a file of requirements."""
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]


def problems(requirements: str, lock: str, left_out: str = "") -> list[str]:
    """What a lock file lacks of its requirements, and what it has against them."""
    locked = entries(lock)
    outside = {canonicalize_name(package.name) for package in asked(left_out)}
    found = [f"{name}: from Debian, but locked" for name in sorted(outside & set(locked))]
    for package in asked(requirements):
        name = canonicalize_name(package.name)
        if name in outside:
            continue
        versions = [next(iter(one.specifier)).version for one in locked.get(name, [])]
        if not versions:
            found.append(f"{name}: not locked")
        found += [f"{name}: {one} locked, asked for {package}" for one in versions if one not in package.specifier]
    return found


def left_out(name: str) -> str:
    path = CI / "requirements" / f"{name}.debian.txt"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_what_its_requirements_ask_for_and_each_file_by_its_hash(name: str) -> None:
    text = (CI / "requirements" / f"{name}.lock").read_text()
    assert problems(LOCKS[name][0], text, left_out(name)) == [], "run `make locks LOCKS=--keep`"


def test_every_environment_has_a_lock_and_every_lock_an_environment() -> None:
    makefile = (ROOT / "Makefile").read_text()
    environments = set(re.findall(r"venv-([a-z]+)", makefile))
    assert environments | {core.lock.stem for core in CORES if core.locked} == set(LOCKS)
    assert {path.stem for path in (CI / "requirements").glob("*.lock")} == set(LOCKS)
    tested = re.findall(r"ansible-test-([0-9a-z.]+)", re.findall(r"(?m)^MODELS := (.*)$", makefile)[0])
    assert tested and set(tested) == {core.name for core in CORES if core.locked}


def test_the_agent_is_tested_with_the_libraries_of_debian() -> None:
    locked = set(entries((CI / "requirements" / "dev.lock").read_text()))
    assert not AGENTS & locked
    assert "pyyaml" in {canonicalize_name(package.name) for package in asked(left_out("dev"))}


PIN = f"a==1.0 \\\n    --hash=sha256:{'0' * 64}\n"


@pytest.mark.parametrize(
    ("requirements", "expected"),
    [
        ("a~=1.0\n", []),
        ("# b\nA\n", []),
        ("a\nb-c\n", ["b-c: not locked"]),
        ("a~=2.0\n", ["a: 1.0 locked, asked for a~=2.0"]),
    ],
)
def test_a_package_that_a_lock_lacks_is_found(requirements: str, expected: list[str]) -> None:
    assert problems(requirements, PIN) == expected


def test_a_package_of_debian_is_not_locked() -> None:
    assert problems("a\nb\n", PIN, "b==1\n") == []
    assert problems("a\n", PIN, "a==1.0\n") == ["a: from Debian, but locked"]


@pytest.mark.parametrize(
    "line",
    [
        "b==1.0",
        "b==1.0 --hash=md5:00",
        f"b>=1.0 --hash=sha256:{'0' * 64}",
        f"b==1.* --hash=sha256:{'0' * 64}",
        f"b @ https://example.org/b.whl --hash=sha256:{'0' * 64}",
        "--extra-index-url https://example.org/simple",
    ],
)
def test_a_line_without_a_version_or_a_hash_is_found(line: str) -> None:
    with pytest.raises(ValueError, match="expected a"):
        problems("a\n", f"{PIN}{line}\n")


def wheel(directory: Path) -> Path:
    """A package of one module, as a wheel."""
    directory.mkdir()
    path = directory / "xgdummy-1.0-py3-none-any.whl"
    files = {
        "xgdummy.py": "X = 1\n",
        "xgdummy-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: xgdummy\nVersion: 1.0\n",
        "xgdummy-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "xgdummy-1.0.dist-info/RECORD"
    lines = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{name},sha256={digest},{len(content)}\n")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, record: "".join(lines) + f"{record},,\n"}.items():
            archive.writestr(name, content)
    return path


def make(checkout: Path, wheels: Path) -> subprocess.CompletedProcess[str]:
    """Run .ci/venv without any package index."""
    environment = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_CONFIG_FILE": os.devnull}
    command = [str(checkout / ".ci" / "venv"), "x"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.slow
def test_an_environment_is_made_of_the_locked_files_only(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    lock = checkout / ".ci" / "requirements" / "x.lock"
    lock.parent.mkdir(parents=True)
    shutil.copy(CI / "venv", checkout / ".ci" / "venv")
    package = wheel(tmp_path / "wheels")
    python = checkout / ".cache" / "venv" / "x" / "bin" / "python"

    for wrong in ("xgdummy==1.0\n", f"xgdummy==1.0 --hash=sha256:{'0' * 64}\n"):
        lock.write_text(wrong)
        done = make(checkout, package.parent)
        assert done.returncode != 0
        assert "hash" in (done.stdout + done.stderr).lower()
        assert not (python.parents[1] / ".complete").exists()

    lock.write_text(f"xgdummy==1.0 --hash=sha256:{hashlib.sha256(package.read_bytes()).hexdigest()}\n")
    done = make(checkout, package.parent)
    assert done.returncode == 0, done.stderr
    assert subprocess.run([str(python), "-c", "import xgdummy"], timeout=60, check=False).returncode == 0
    # Nothing is asked for once it is there.
    package.unlink()
    done = make(checkout, package.parent)
    assert (done.returncode, done.stdout) == (0, "")
