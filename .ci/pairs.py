#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Run the agent's quick unit tests with the Python and the libraries of other distributions.

usage: .ci/pairs.py REPORTS [NAME...]

A pair is a Python and the versions of the agent's libraries that a distribution ships. The libraries come from PyPI, so
patches of the distribution are not in them. A virtual environment per pair is made under .cache/pairs/ and used again.
Without names, all pairs run. A pair whose Python is not on this machine is skipped, with a line that says so.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ansible_env import ROOT, SetupError, find_python, run, version_of

CACHE = ROOT / ".cache" / "pairs"
#: What the tests need besides. A package's newest version that the Python allows will do.
TOOLS = (
    "pytest>=8",
    "pytest-timeout",
    "pytest-xdist",
    "hypothesis",
    "jsonschema",
    "setuptools",
    "cyclonedx-python-lib[json-validation]",
)
#: What a build of an old library must not use: PyYAML 5.4 cannot be built with a newer one.
CONSTRAINTS = ("cython<3",)


@dataclass(frozen=True)
class Pair:
    """The Python and the libraries of a distribution."""

    name: str
    #: Its row in the README's table.
    system: str
    #: As 3.13.
    python: str
    #: PyPI's names of the libraries that the agent imports, and of what their versions need.
    packages: Mapping[str, str] = field(hash=False)


#: From the package lists of each distribution: Debian's and Ubuntu's archives; Red Hat's BaseOS and AppStream, and EPEL
#: for aiohttp, msgpack, prometheus_client and PyNaCl.
PAIRS = (
    Pair(
        "debian-13",
        "Debian 13",
        "3.13",
        {
            "aiohttp": "3.11.16",
            "cryptography": "43.0.0",
            "jinja2": "3.1.6",
            "markupsafe": "2.1.5",
            "msgpack": "1.0.3",
            "prometheus-client": "0.21.1",
            "pynacl": "1.5.0",
            "pyyaml": "6.0.2",
            "yarl": "1.19.0",
        },
    ),
    Pair(
        "ubuntu-22.04",
        "Ubuntu 22.04",
        "3.10",
        {
            "aiohttp": "3.8.1",
            "cryptography": "3.4.8",
            "jinja2": "3.0.3",
            "markupsafe": "2.0.1",
            "msgpack": "1.0.3",
            "prometheus-client": "0.9.0",
            "pynacl": "1.5.0",
            "pyyaml": "5.4.1",
        },
    ),
    Pair(
        "ubuntu-24.04",
        "Ubuntu 24.04",
        "3.12",
        {
            "aiohttp": "3.9.1",
            "cryptography": "41.0.7",
            "jinja2": "3.1.2",
            "markupsafe": "2.1.5",
            "msgpack": "1.0.3",
            "prometheus-client": "0.19.0",
            "pynacl": "1.5.0",
            "pyyaml": "6.0.1",
        },
    ),
    Pair(
        "el-9",
        "Red Hat family 9",
        "3.9",
        {
            "aiohttp": "3.9.5",
            "cryptography": "36.0.1",
            "jinja2": "2.11.3",
            "markupsafe": "1.1.1",
            "msgpack": "1.0.3",
            "prometheus-client": "0.21.0",
            "pynacl": "1.4.0",
            "pyyaml": "5.4.1",
        },
    ),
    Pair(
        "el-10",
        "Red Hat family 10",
        "3.12",
        {
            "aiohttp": "3.11.18",
            "cryptography": "43.0.0",
            "jinja2": "3.1.6",
            "markupsafe": "2.1.5",
            "msgpack": "1.1.0",
            "prometheus-client": "0.21.1",
            "pynacl": "1.5.0",
            "pyyaml": "6.0.1",
        },
    ),
)


def environment(pair: Pair, python: str) -> Path:
    """The directory of a virtual environment with the pair's libraries on ``python``, made when it is missing.

    Raises ``SetupError`` if it cannot be made.
    """
    directory = CACHE / pair.name
    words = [*(f"{name}=={version}" for name, version in pair.packages.items()), *TOOLS]
    wanted = hashlib.sha256(f"{version_of(python)} {words} {CONSTRAINTS} {CACHE}".encode()).hexdigest()
    stamp = directory / ".complete"
    if stamp.is_file() and stamp.read_text() == wanted:
        return directory
    shutil.rmtree(directory, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    constraints = CACHE / "constraints.txt"
    constraints.write_text("".join(f"{line}\n" for line in CONSTRAINTS))
    os.environ["PIP_CONSTRAINT"] = str(constraints)  # builds, too, which an option of pip does not reach
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "--quiet"]
    for command in ([python, "-m", "venv", str(directory)], [*pip, "install", "--no-input", "--retries", "5", *words]):
        if run(command):
            raise SetupError(f"{pair.name}: the libraries cannot be installed on {python}: see above")
    stamp.write_text(wanted)
    return directory


def main(arguments: list[str]) -> int:
    """Run the pairs one after the other; 1 if one of them fails, 2 for wrong arguments."""
    names = [pair.name for pair in PAIRS]
    if not arguments or (unknown := [name for name in arguments[1:] if name not in names]):
        print(
            f"{__doc__}\npairs.py: expected REPORTS and names of {', '.join(names)}"
            if not arguments
            else f"pairs.py: expected {', '.join(names)}, got {', '.join(unknown)}",
            file=sys.stderr,
        )
        return 2
    reports, failed = Path(arguments[0]), []
    for pair in PAIRS:
        if arguments[1:] and pair.name not in arguments[1:]:
            continue
        python = find_python((pair.python,))
        if python is None:
            print(f"{pair.name}: skipped, there is no Python {pair.python}", flush=True)
            continue
        try:
            directory = environment(pair, python)
        except SetupError as error:
            print(error, file=sys.stderr)
            failed.append(pair.name)
            continue
        tests = [
            str(directory / "bin" / "python"),
            "-m",
            "pytest",
            "tests/agent",
            "-m",
            "not slow and not root",
            "-n",
            "2",
            "-q",
        ]
        if run([*tests, f"--junitxml={reports}/{pair.name}.xml"], cwd=ROOT):
            failed.append(pair.name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
