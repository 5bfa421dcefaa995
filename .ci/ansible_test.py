#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Run ansible-test sanity and units on a clean copy of the collection, with one ansible-core on one Python.

    .ci/ansible_test.py --python /usr/bin/python3 --core 2.19 [sanity] [units]

Without a command, both run. The environment with ansible-core is made under .cache/ when it is not there yet.
Exit status: 0 when all passed, 1 when a test failed, 2 when the environment could not be made.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "ansible-test"

#: Not part of what Ansible reads: the agent and its tests have checkers of their own (see pyproject.toml).
NOT_ANSIBLE = ("agent/", "bpf/", "bench/", "tests/", ".ci/")
ANSIBLE_TESTS = ("tests/unit/plugins/", "tests/integration/", "tests/sanity/", "tests/config.yml")

#: ansible-test fetches pip's bootstrap script from a server of its own before it makes an environment. Python brings
#: pip along, so nothing has to be fetched: this does the same from the copy inside the standard library.
BOOTSTRAP = '''\
"""Install pip from the standard library's copy; written by xdp_gossip.fleet's .ci/ansible_test.py."""
import ensurepip
import os
import subprocess
import sys

ensurepip.bootstrap()
os.environ.pop("PIP_CONFIG_FILE", None)  # ensurepip points it at nothing, and with it would go the index to use
options = [option for option in sys.argv[1:] if option not in ("--no-setuptools", "--no-wheel")]
sys.exit(subprocess.call([sys.executable, "-m", "pip", "install"] + options))
'''


class SetupError(Exception):
    """The environment could not be made; ``str()`` says why."""


def run(command: list[str], *, cwd: Path | None = None, seconds: float = 1200) -> int:
    """Run a command with its output shown and a limit on its time; returns its exit status."""
    print("+ " + " ".join(command), flush=True)
    try:
        return subprocess.run(command, cwd=cwd, stdin=subprocess.DEVNULL, timeout=seconds, check=False).returncode
    except subprocess.TimeoutExpired:
        print(f"{command[0]}: stopped after {seconds:g} s", file=sys.stderr)
        return 124


def environment(python: str, core: str) -> Path:
    """The directory of a virtual environment with ansible-core ``core``.* on ``python``, made when it is missing."""
    try:
        version = subprocess.run(
            [python, "-c", "import sys; print('%d.%d' % sys.version_info[:2], sys.version)"],
            capture_output=True, text=True, check=True, timeout=60,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise SetupError(f"--python {python}: {error}") from None
    # The path is part of the key because the scripts of a virtual environment name it.
    wanted = hashlib.sha256(f"{version} {core} {CACHE}".encode()).hexdigest()
    directory = CACHE / f"py{version.split()[0]}-core{core}"
    stamp = directory / ".complete"
    if stamp.is_file() and stamp.read_text() == wanted:
        return directory
    print(f"making {directory.relative_to(ROOT)}", flush=True)
    shutil.rmtree(directory, ignore_errors=True)
    directory.parent.mkdir(parents=True, exist_ok=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    install = [*pip, "install", "--no-input", "--retries", "5", f"ansible-core=={core}.*"]
    for command in ([python, "-m", "venv", str(directory)], install):
        if run(command):
            raise SetupError(f"ansible-core {core} cannot be installed on {python}: see above")
    stamp.write_text(wanted)
    return directory


def provide_pip(directory: Path) -> None:
    """Put the bootstrap script where the installed ansible-test looks for a downloaded one, unless one is there."""
    pattern = re.compile(r"\bpip='([0-9.]+)'")
    for source in directory.glob("lib/python*/site-packages/ansible_test/_internal/python_requirements.py"):
        for version in set(pattern.findall(source.read_text())):
            target = Path.home() / ".ansible" / "test" / "cache" / f"get_pip_{version.replace('.', '_')}.py"
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(BOOTSTRAP)


def files() -> list[str]:
    """What belongs to the collection: all that git tracks or would, less the parts that Ansible does not read."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    ).stdout.split("\0")
    return [
        name
        for name in listed
        if name and (name.startswith(ANSIBLE_TESTS) or not name.startswith(NOT_ANSIBLE)) and (ROOT / name).is_file()
    ]


def copy_to(target: Path) -> None:
    """Copy the collection's files. ansible-test refuses a symbolic link to a checkout."""
    for name in files():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)


def keep_reports(copy: Path) -> None:
    """Move the JUnit reports of the run to where .ci/steps.py counts them (its REPORTS), if it runs us."""
    if not (reports := os.environ.get("REPORTS")):
        return
    for report in (copy / "tests" / "output" / "junit").glob("*.xml"):
        Path(reports).mkdir(parents=True, exist_ok=True)
        shutil.move(report, Path(reports) / report.name)


def main() -> int:
    """Parse the arguments, make the environment and the copy, run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default="/usr/bin/python3", help="for ansible-core (default: %(default)s)")
    parser.add_argument("--core", default="2.19", help="ansible-core to use, as 2.19 (default: %(default)s)")
    parser.add_argument("--target-python", default="", help="units: run those of modules on this Python too, as 3.8")
    parser.add_argument("command", nargs="*", help="sanity, units (default: both)")
    arguments = parser.parse_args()
    commands = arguments.command or ["sanity", "units"]
    if not re.fullmatch(r"[0-9]+\.[0-9]+", arguments.core):
        parser.error(f"--core: expected a version such as 2.19, got {arguments.core!r}")
    if unknown := sorted(set(commands) - {"sanity", "units"}):
        parser.error(f"expected sanity or units, got {', '.join(unknown)}")
    if "sanity" in commands and not shutil.which("shellcheck"):
        parser.error("sanity needs shellcheck (apt-get install shellcheck); without it that test checks nothing")
    try:
        directory = environment(arguments.python, arguments.core)
        provide_pip(directory)
    except SetupError as error:
        print(f"ansible_test.py: {error}", file=sys.stderr)
        return 2
    os.environ["PATH"] = f"{directory / 'bin'}{os.pathsep}{os.environ['PATH']}"
    major_minor = directory.name[2:].split("-")[0]
    failed = []
    with tempfile.TemporaryDirectory(prefix="xdp-gossip-ansible-test-") as temporary:
        copy = Path(temporary) / "ansible_collections" / "xdp_gossip" / "fleet"
        copy_to(copy)
        for command in commands:
            pythons = [major_minor]
            if command == "units" and arguments.target_python:
                pythons.append(arguments.target_python)
            for python in pythons:
                started = time.monotonic()
                program = str(directory / "bin" / "ansible-test")
                status = run([program, command, "--venv", "--python", python, "--color", "no", "-v"], cwd=copy)
                keep_reports(copy)
                outcome = "passed" if status == 0 else f"failed (exit status {status})"
                label = f"ansible-test {command}, ansible-core {arguments.core}, Python {python}"
                print(f"{label}: {outcome} in {time.monotonic() - started:.0f} s", flush=True)
                if status:
                    failed.append(label)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
