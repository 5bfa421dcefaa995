#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Run the collection's ansible-test integration targets on a clean copy, with one ansible-core on one Python.

    .ci/integration.py --core 2.18|2.19|newest|VERSION [--python PROGRAM] [TARGET...]

Without a target, all run. They start agents of this checkout (the target setup_agent), in network namespaces.
Exit status: 0 when all passed or were skipped for want of a Python, 1 when one failed, 2 when the environment could not
be made.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from ansible_env import ROOT, SetupError, core_named, environment, find_python, installed_core, run, version_of
from ansible_test import copy_to, provide_pip, skip

TARGETS = ROOT / "tests" / "integration" / "targets"
#: Seconds for one target; ansible-test itself has no limit.
TARGET_SECONDS = 300


def all_targets() -> list[str]:
    """Names of the targets that run by themselves; those with the alias `hidden` only serve others."""
    return sorted(
        path.parent.name for path in TARGETS.glob("*/aliases") if "hidden" not in path.read_text().splitlines()
    )


def report(copy: Path, targets: list[str]) -> None:
    """Leave a JUnit report with one test case for each target where .ci/steps.py counts them (its REPORTS).

    ansible-test's own reports have one test case for each task, of set-up too.
    """
    if not (reports := os.environ.get("REPORTS")):
        return
    passed: dict[str, float] = {}
    for result in (copy / "tests" / "output" / "data").glob("integration-*.json"):
        for name, target in json.loads(result.read_text())["targets"].items():
            passed[name] = target["run_time_seconds"]
    failures = len(targets) - len(passed)
    suite = ET.Element("testsuite", name="integration", tests=str(len(targets)), failures=str(failures))
    for name in targets:
        case = ET.SubElement(suite, "testcase", classname="integration", name=name, time=str(passed.get(name, 0)))
        if name not in passed:
            ET.SubElement(case, "failure", message="see the output of ansible-test")
    Path(reports).mkdir(parents=True, exist_ok=True)
    ET.ElementTree(suite).write(Path(reports) / "integration.xml", encoding="utf-8", xml_declaration=True)


def main() -> int:
    """Parse the arguments, make the environment and the copy, run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default="", help="for ansible-core (default: the first of its own that is found)")
    parser.add_argument("--core", default="2.19", help="2.18, 2.19, newest or a version (default: %(default)s)")
    parser.add_argument("target", nargs="*", help=f"default: all of {', '.join(all_targets())}")
    arguments = parser.parse_args()
    targets = arguments.target or all_targets()
    if unknown := sorted(set(targets) - set(all_targets())):
        parser.error(f"expected targets out of {', '.join(all_targets())}, got {', '.join(unknown)}")
    try:
        line = core_named(arguments.core)
    except ValueError as error:
        parser.error(f"--core: {error}")
    python = arguments.python or find_python(line.pythons)
    if python is None:
        if not line.pythons:
            parser.error(f"--core {line.name}: expected --python with a Python that it runs on")
        skip(["integration"], f"it needs one of Python {', '.join(line.pythons)}, and none was found here")
        return 0
    try:
        version = version_of(python).split()[0]
        directory = environment(python, line.name)
        provide_pip(directory)
        label = f"ansible-core {installed_core(directory)}"
    except SetupError as error:
        print(f"integration.py: {error}", file=sys.stderr)
        return 2
    os.environ["PATH"] = f"{directory / 'bin'}{os.pathsep}{os.environ['PATH']}"
    # So that the copy is removed when the run is ended from outside.
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="xdp-gossip-integration-") as temporary:
        copy = Path(temporary) / "ansible_collections" / "xdp_gossip" / "fleet"
        copy_to(copy)
        settings = {"setup_agent_command": str(ROOT / "agent" / "bin" / "xdp-gossip")}
        (copy / "tests" / "integration" / "integration_config.yml").write_text(json.dumps(settings))
        command = [str(directory / "bin" / "ansible-test"), "integration", "--venv", "--python", version]
        command += ["--color", "no", "-v", "--continue-on-error", *targets]
        status = run(command, cwd=copy, seconds=120 + TARGET_SECONDS * len(targets))
        report(copy, targets)
    outcome = "passed" if status == 0 else f"failed (exit status {status})"
    print(f"ansible-test integration, {label}, Python {version}: {outcome}", flush=True)
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())
