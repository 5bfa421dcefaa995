# SPDX-License-Identifier: MIT
"""The ansible-core releases that the collection is tested with, and environments that have them.

A virtual environment per release line and Python is made under ``.cache/ansible-test/`` and used again. What CI tests
with is installed from lock files (``.ci/locks``).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "ansible-test"

REQUIREMENTS = ROOT / ".ci" / "requirements"

#: Seconds after which a line without a fixed release and without a lock file is looked up again.
FRESH = 24 * 3600


class SetupError(Exception):
    """The environment could not be made; ``str()`` says why."""


@dataclass(frozen=True)
class Core:
    """A line of ansible-core releases."""

    name: str
    #: What pip is asked for.
    requirement: str
    #: Pythons that run it, as 3.11; the first one found is used. Empty: the caller has to name one.
    pythons: tuple[str, ...] = ()
    #: The oldest Python that its modules run on.
    target: str = ""
    #: Whether a lock file states the exact versions.
    locked: bool = False

    @property
    def lock(self) -> Path:
        """The lock file, made from the requirement."""
        return REQUIREMENTS / f"ansible-test-{self.name}.lock"

    def wanted(self) -> list[str]:
        """The words by which pip is asked for it."""
        if not self.locked:
            return [self.requirement]
        return ["--require-hashes", "--only-binary", ":all:", "--requirement", str(self.lock)]


#: What `make test` uses: the oldest that meta/runtime.yml allows, the last with Python 3.11, and what was newest when
#: the lock files were written.
CORES = (
    Core("2.18", "ansible-core~=2.18.0", ("3.11", "3.12", "3.13"), "3.8", locked=True),
    Core("2.19", "ansible-core~=2.19.0", ("3.11", "3.12", "3.13"), "3.8", locked=True),
    Core("newest", "ansible-core>=2.21,<3", ("3.14", "3.13", "3.12"), "3.9", locked=True),
)
#: What `make long` uses as well: what is newest today. It is on purpose no fixed release: that a new ansible-core
#: breaks something is what we want to hear first from our own tests. The log names the release, and `--core 2.21.5`
#: gets exactly that one again.
UNPINNED = Core("unpinned", "ansible-core>=2.21,<3", ("3.14", "3.13", "3.12"), "3.9")


def core_named(name: str) -> Core:
    """The line called ``name``, or one made for a version such as 2.20 or 2.21.5; ValueError for anything else."""
    for core in (*CORES, UNPINNED):
        if core.name == name:
            return core
    if re.fullmatch(r"[0-9]+\.[0-9]+", name):
        return Core(name, f"ansible-core=={name}.*")
    if re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", name):
        return Core(name, f"ansible-core=={name}")
    known = ", ".join(core.name for core in (*CORES, UNPINNED))
    raise ValueError(f"expected {known} or a version such as 2.20 or 2.21.5, got {name!r}")


def run(command: list[str], *, cwd: Path | None = None, seconds: float = 1200) -> int:
    """Run a command with its output shown and a limit on its time; returns its exit status.

    The limit is against hanging, so it is as many times as long as PATIENCE says (tests/support/patience.py).
    """
    seconds *= float(os.environ.get("PATIENCE", "1"))
    print("+ " + " ".join(command), flush=True)
    try:
        return subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, timeout=seconds, check=False).returncode
    except subprocess.TimeoutExpired:
        print(f"{command[0]}: stopped after {seconds:g} s", file=sys.stderr)
        return 124


def version_of(python: str) -> str:
    """The whole version text of an interpreter, beginning as in ``3.11 ``; SetupError when it does not run."""
    program = "import sys; print('%d.%d' % sys.version_info[:2], sys.version)"
    try:
        return subprocess.run([python, "-c", program], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise SetupError(f"{python}: {error}") from None


def candidates(version: str) -> list[str]:
    """Where an interpreter such as 3.13 may be: the distribution's, one in the path, pyenv's."""
    name = f"python{version}"
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = [Path("/usr/bin") / name, *(Path(folder) / name for folder in os.get_exec_path())]
    found += sorted(pyenv.glob(f"versions/{version}.*/bin/{name}"), reverse=True)
    return [str(path) for path in dict.fromkeys(found) if os.access(path, os.X_OK)]


def find_python(versions: tuple[str, ...]) -> str | None:
    """The first interpreter of these versions that runs, or None.

    Being there is not enough: pyenv puts a stand-in for every version into the path, and most of them only complain.
    """
    for version in versions:
        for python in candidates(version):
            try:
                if version_of(python).startswith(f"{version} "):
                    return python
            except SetupError:
                continue
    return None


def environment(python: str, core: str) -> Path:
    """The directory of a virtual environment with the line ``core`` on ``python``, made when it is missing."""
    line = core_named(core)
    version = version_of(python)
    # The path is part of the key because the scripts of a virtual environment name it.
    versions = line.lock.read_text() if line.locked else line.requirement
    wanted = hashlib.sha256(f"{version} {versions} {CACHE}".encode()).hexdigest()
    directory = CACHE / f"py{version.split()[0]}-core{core}"
    stamp = directory / ".complete"
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    install = [*pip, "install", "--no-input", "--retries", "5", *line.wanted()]
    if stamp.is_file() and stamp.read_text() == wanted:
        if not line.locked and ">" in line.requirement and time.time() - stamp.stat().st_mtime > FRESH:
            if run([*install, "--upgrade"]):
                print(f"could not look for a newer ansible-core; going on with the one in {directory.name}")
            stamp.touch()
        return directory
    print(f"making {directory.relative_to(ROOT)}", flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    for command in ([python, "-m", "venv", str(directory)], install):
        if run(command):
            raise SetupError(f"{line.requirement} cannot be installed on {python}: see above")
    stamp.write_text(wanted)
    return directory


def installed_core(directory: Path) -> str:
    """The version of ansible-core in an environment, as 2.19.14."""
    for found in directory.glob("lib/python*/site-packages/ansible_core-*.dist-info"):
        return found.name.removeprefix("ansible_core-").removesuffix(".dist-info")
    raise SetupError(f"{directory}: expected ansible-core to be installed there, found none")
