#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Run ansible-test sanity, units and integration on a clean copy of the collection, with one ansible-core.

    .ci/ansible_test.py --core 2.18|2.19|newest|unpinned|VERSION [--python PROGRAM] [--coverage] [sanity] [units]
    .ci/ansible_test.py --core 2.18|2.19|newest|unpinned|VERSION [--python PROGRAM] [--target NAME]... integration

Without a command, sanity and units run. Targets of integration start agents of this checkout, in network namespaces.
Without --python, one that this ansible-core runs on is looked for; where there is none the run is skipped, and says so.
Whatever must also work on the oldest Python that Ansible still manages hosts with is
tried on that one too, where it is there: the units of modules, and whether their code compiles and imports.

The environment with ansible-core is made under .cache/ when it is not there yet.
Exit status: 0 when all passed or was skipped, 1 when a test failed, 2 when the environment could not be made.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from ansible_env import ROOT, Core, SetupError, core_named, environment, find_python, installed_core, run, version_of

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

TARGETS = ROOT / "tests" / "integration" / "targets"
#: Seconds for one target of integration; ansible-test itself has no limit.
TARGET_SECONDS = 300

#: Where what units reached is recorded, beside what the agent's tests reached.
COVERAGE = ROOT / ".cache" / "coverage" / "plugins"


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
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
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


def keep_reports(copy: Path, python: str) -> None:
    """Move the JUnit reports of a run to where .ci/steps.py counts them (its REPORTS), if it runs us."""
    if not (reports := os.environ.get("REPORTS")):
        return
    target = Path(reports) / f"python{python}"
    for report in (copy / "tests" / "output" / "junit").glob("*.xml"):
        target.mkdir(parents=True, exist_ok=True)
        shutil.move(report, target / report.name)


def keep_coverage(copy: Path) -> None:
    """Move what `units --coverage` recorded to where `make coverage` reads it, in place of an earlier run's."""
    if records := list((copy / "tests" / "output" / "coverage").glob("*=coverage.*")):
        shutil.rmtree(COVERAGE, ignore_errors=True)
        COVERAGE.mkdir(parents=True)
    for record in records:
        # The name that `coverage combine` looks for in a directory.
        shutil.move(record, COVERAGE / f"data.{record.name}")


def report(file: str, suite: str, cases: dict[str, tuple[float, str, str]]) -> None:
    """Write a JUnit report where .ci/steps.py counts it (its REPORTS), if it runs us.

    ``cases``: by name, the seconds that a case took, ``skipped`` or ``failure`` or nothing, and why.
    """
    if not (reports := os.environ.get("REPORTS")):
        return
    outcomes = [outcome for _, outcome, _ in cases.values()]
    counts = {"tests": len(cases), "failures": outcomes.count("failure"), "skipped": outcomes.count("skipped")}
    root = ET.Element("testsuite", {"name": suite, **{name: str(count) for name, count in counts.items()}})
    for name, (seconds, outcome, why) in cases.items():
        case = ET.SubElement(root, "testcase", classname=suite, name=name, time=str(seconds))
        if outcome:
            ET.SubElement(case, outcome, message=why)
    Path(reports).mkdir(parents=True, exist_ok=True)
    ET.ElementTree(root).write(Path(reports) / f"{file}.xml", encoding="utf-8", xml_declaration=True)


def skip(names: list[str], why: str) -> None:
    """Say that these did not run, and why."""
    for name in names:
        print(f"SKIPPED {name}: {why}", flush=True)
    report(f"skipped-{names[0].replace(' ', '-')}", "ansible-test", dict.fromkeys(names, (0, "skipped", why)))


def all_targets() -> list[str]:
    """Names of the targets of integration that run by themselves; those with the alias `hidden` only serve others."""
    return sorted(
        path.parent.name for path in TARGETS.glob("*/aliases") if "hidden" not in path.read_text().splitlines()
    )


def integrate(program: str, copy: Path, python: str, targets: list[str]) -> int:
    """Run these targets; returns the exit status of ansible-test.

    Its own reports have one test case for each task, of set-up too; ours has one for each target.
    """
    settings = {"setup_agent_command": str(ROOT / "agent" / "bin" / "xdp-gossip")}
    (copy / "tests" / "integration" / "integration_config.yml").write_text(json.dumps(settings))
    command = [program, "integration", "--venv", "--python", python, "--color", "no", "-v", "--continue-on-error"]
    status = run([*command, *targets], cwd=copy, seconds=120 + TARGET_SECONDS * len(targets))
    cases = dict.fromkeys(targets, (0.0, "failure", "see the output of ansible-test"))
    for result in (copy / "tests" / "output" / "data").glob("integration-*.json"):
        for name, target in json.loads(result.read_text())["targets"].items():
            cases[name] = (target["run_time_seconds"], "", "")
    report("integration", "integration", cases)
    return status


def plan(commands: list[str], python: str, target: str, coverage: bool = False) -> list[tuple[str, list[str]]]:
    """The Python and the arguments of each ansible-test run; ``coverage``: units on ``python`` are measured."""
    more = {"sanity": ["--junit"], "units": ["--coverage"] if coverage else []}
    runs = [(python, [command, *more.get(command, [])]) for command in commands]
    if target and target != python:
        for command in (command for command in commands if command != "integration"):
            # On a Python that only modules run on, the other sanity tests would only be run once more.
            only = ["--junit", "--test", "compile", "--test", "import"] if command == "sanity" else []
            runs.append((target, [command, *only]))
    return runs


def run_all(directory: Path, runs: list[tuple[str, list[str]]], label: str, targets: list[str]) -> int:
    """Run them one after the other on one copy, ``targets`` of integration; returns how many failed."""
    program = str(directory / "bin" / "ansible-test")
    failed = 0
    with tempfile.TemporaryDirectory(prefix="xdp-gossip-ansible-test-") as temporary:
        copy = Path(temporary) / "ansible_collections" / "xdp_gossip" / "fleet"
        copy_to(copy)
        for python, arguments in runs:
            started = time.monotonic()
            if arguments[0] == "integration":
                status = integrate(program, copy, python, targets)
            else:
                status = run([program, *arguments, "--venv", "--python", python, "--color", "no"], cwd=copy)
                keep_reports(copy, python)
                keep_coverage(copy)
            outcome = "passed" if status == 0 else f"failed (exit status {status})"
            seconds = time.monotonic() - started
            print(f"ansible-test {arguments[0]}, {label}, Python {python}: {outcome} in {seconds:.0f} s", flush=True)
            failed += status != 0
    return failed


def find_target(line: Core, wanted: str, commands: list[str]) -> str:
    """The Python for what runs on hosts, put in front of the path for ansible-test; empty when it is missing."""
    version = wanted or line.target
    if not version:
        return ""
    if (program := find_python((version,))) is None:
        skip([f"{command} on Python {version}" for command in commands], f"no Python {version} here")
        return ""
    os.environ["PATH"] = f"{Path(program).parent}{os.pathsep}{os.environ['PATH']}"
    return version


def main() -> int:
    """Parse the arguments, make the environment and the copy, run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default="", help="for ansible-core (default: the first of its own that is found)")
    parser.add_argument(
        "--core", default="2.19", help="2.18, 2.19, newest, unpinned or a version (default: %(default)s)"
    )
    parser.add_argument("--target-python", default="", help="of hosts, as 3.8 (default: the oldest for ansible-core)")
    parser.add_argument("--coverage", action="store_true", help="measure what units reach, for `make coverage`")
    parser.add_argument("--target", action="append", choices=all_targets(), help="of integration (default: all)")
    parser.add_argument("command", nargs="*", help="sanity, units, integration (default: sanity and units)")
    arguments = parser.parse_args()
    commands = arguments.command or ["sanity", "units"]
    if unknown := sorted(set(commands) - {"sanity", "units", "integration"}):
        parser.error(f"expected sanity, units or integration, got {', '.join(unknown)}")
    if "sanity" in commands and not shutil.which("shellcheck"):
        parser.error("sanity needs shellcheck (apt-get install shellcheck); without it that test checks nothing")
    try:
        line = core_named(arguments.core)
    except ValueError as error:
        parser.error(f"--core: {error}")
    python = arguments.python or find_python(line.pythons)
    if python is None:
        if not line.pythons:
            parser.error(f"--core {line.name}: expected --python with a Python that it runs on")
        names = [f"{command} with ansible-core {line.name}" for command in commands]
        skip(names, f"it needs one of Python {', '.join(line.pythons)}, and none was found here")
        return 0
    try:
        version = version_of(python).split()[0]
        directory = environment(python, line.name)
        provide_pip(directory)
        label = f"ansible-core {installed_core(directory)}"
    except SetupError as error:
        print(f"ansible_test.py: {error}", file=sys.stderr)
        return 2
    # Integration runs modules on this host, so on the Python of ansible-core.
    on_hosts = [command for command in commands if command != "integration"]
    target = find_target(line, arguments.target_python, on_hosts) if on_hosts else ""
    # So that the copy is removed when the run is ended from outside.
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    os.environ["PATH"] = f"{directory / 'bin'}{os.pathsep}{os.environ['PATH']}"
    runs = plan(commands, version, target, arguments.coverage)
    return 1 if run_all(directory, runs, label, arguments.target or all_targets()) else 0


if __name__ == "__main__":
    sys.exit(main())
