# SPDX-License-Identifier: MIT
"""The ledger of claims: each feature that the project promises, and the tests that prove it.

The lines of the threat model in docs/security.md are claims, too; tests/threats.py reads them.

``features()`` derives what is promised from the product and its documentation: commands, routes, findings, options,
settings, the library's public names, headings. ``tests/claims.yml`` names the tests. ``python -m tests.claims REPORTS``
reads the JUnit reports of a whole run and says which claims were not proved by it, and what in the README's table of
systems (``tests/systems.py``) is not what was run.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import importlib
import inspect
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests import systems
from tests.threats import read_model

ROOT = Path(__file__).resolve().parents[1]
LEDGER = ROOT / "tests" / "claims.yml"

#: What a test can need, and how to see whether it is there.
NEEDS: Mapping[str, Callable[[], bool]] = {
    "root": lambda: os.geteuid() == 0,
    "bpf": lambda: os.geteuid() == 0 and Path("/sys/fs/bpf").is_dir(),
    "browser": lambda: shutil.which("chromedriver") is not None,
    "guests": lambda: shutil.which("qemu-system-x86_64") is not None,
    "lab": lambda: os.geteuid() == 0 and shutil.which("systemd-nspawn") is not None,
    "ansible": lambda: (ROOT / ".cache" / "venv" / "ansible").is_dir(),
}


@dataclass(frozen=True)
class Claim:
    """One promised feature and the tests that prove it.

    A test is ``FILE::FUNCTION`` or ``FILE::CLASS::FUNCTION`` for pytest; else a file of a Molecule scenario or of an
    integration target, which is run as a whole. ``needs`` are names in :data:`NEEDS`.
    """

    feature: str
    tests: tuple[str, ...]
    needs: frozenset[str]


@dataclass(frozen=True)
class Ledger:
    """The claims by feature; the headings that promise nothing and the features that no test proves, each with why.

    ``needs``: what the tests below a path need.
    """

    claims: Mapping[str, Claim]
    no_promise: Mapping[str, str]
    unproved: Mapping[str, str]
    needs: Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)


def read_ledger(path: Path = LEDGER) -> Ledger:
    """The ledger. Raises ``ValueError`` naming the entry that is not as it should be."""
    raw = yaml.safe_load(path.read_text())
    needs = {prefix: frozenset(names) for prefix, names in raw["needs"].items()}
    if unknown := frozenset().union(*needs.values()) - set(NEEDS):
        raise ValueError(f"needs: expected {', '.join(NEEDS)}, got {', '.join(sorted(unknown))}")
    claims: dict[str, Claim] = {}
    for kind, entries in raw["claims"].items():
        for name, tests in entries.items():
            feature = f"{kind}: {name}"
            listed = tuple(tests) if isinstance(tests, list) else (tests,)
            if not listed or not all(isinstance(test, str) for test in listed):
                raise ValueError(f"{feature}: expected a test or a list of tests, got {tests!r}")
            claims[feature] = _claim(feature, listed, needs)
    return Ledger(claims, raw["no promise"], raw["unproved"] or {}, needs)


def _claim(feature: str, tests: tuple[str, ...], needs: Mapping[str, frozenset[str]]) -> Claim:
    prefixes = [prefix for prefix in needs for test in tests if test.startswith(prefix)]
    return Claim(feature, tests, frozenset().union(*(needs[prefix] for prefix in prefixes)))


def with_threats(ledger: Ledger) -> Ledger:
    """The ledger with a claim for each line of the threat model. Raises ``ValueError`` for a line without a proof."""
    claims = dict(ledger.claims)
    for lines in read_model().cannot.values():
        for line in lines:
            feature = f"threat: {line.attacker}: {line.text}"
            claims[feature] = _claim(feature, line.proof, ledger.needs)
    return dataclasses.replace(ledger, claims=claims)


# -- what is promised --------------------------------------------------------------------------------------------


def features() -> set[str]:
    """Every feature, as ``KIND: NAME``."""
    found: set[str] = set()
    for kind, names in {
        "command": _commands(),
        "route": _routes(),
        "finding": _findings(),
        "setting": _settings(),
        "library": _library(),
        "plugin": _plugins(),
        "role": _role_options(),
        "playbook": (path.stem for path in (ROOT / "playbooks").glob("*.yml")),
        "text": _headings(),
    }.items():
        found |= {f"{kind}: {name}" for name in names}
    return found


def _commands() -> Iterator[str]:
    """``publish``, ``publish --value``; options that all commands share stand alone."""
    from xdp_gossip.cli.main import build_parser

    parser = build_parser()
    common = {option for action in parser._actions for option in action.option_strings}
    yield from (option for option in common if option.startswith("--"))
    yield from _subcommands(parser, "", common)


def _subcommands(parser: argparse.ArgumentParser, prefix: str, common: set[str]) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                command = f"{prefix}{name}"
                yield command
                for option in (option for entry in inner._actions for option in entry.option_strings):
                    if option.startswith("--") and option not in common:
                        yield f"{command} {option}"
                yield from _subcommands(inner, f"{command} ", common)


def _routes() -> Iterator[str]:
    """``GET /v1/status``."""
    import asyncio

    from xdp_gossip.api.app import build_app
    from xdp_gossip.nodelist import AsyncNodeList

    async def collect() -> list[str]:
        app = build_app(AsyncNodeList(), local=True, ui=True)
        return [
            f"{route.method} {route.resource.canonical}"
            for route in app.router.routes()
            if route.resource is not None and route.method != "HEAD"
        ]

    yield from asyncio.run(collect())


def _findings() -> Iterator[str]:
    """``disk.full``: what ``doctor`` may find."""
    from xdp_gossip.cli import doctor
    from xdp_gossip.cli.doctor.finding import Subject

    for name in doctor.CHECKS:
        importlib.import_module(f"{doctor.__name__}.{name}")
    for subject in Subject.ALL.values():
        yield from (f"{subject.name}.{what}" for what in subject.levels)


def _settings() -> Iterator[str]:
    """``limits.document``."""
    from xdp_gossip.config.agent import AgentConfig, ApiConfig, LogConfig
    from xdp_gossip.config.settings import ClusterKey, DataPlaneConfig
    from xdp_gossip.config.templates import HelperConfig, ServiceConfig, TemplateConfig
    from xdp_gossip.core.settings import Limits, knobs

    nested = {
        "api": ApiConfig,
        "dataplane": DataPlaneConfig,
        "files_helper": HelperConfig,
        "keys": ClusterKey,
        "limits": Limits,
        "log": LogConfig,
        "services": ServiceConfig,
        "templates": TemplateConfig,
    }
    declared = knobs(AgentConfig)
    for field in dataclasses.fields(AgentConfig):
        if field.name == "path" or (field.name in declared and declared[field.name].agent.key is None):
            continue  # of the file itself; set by the agent
        yield field.name
        if field.name in nested:
            yield from (f"{field.name}.{inner.name}" for inner in dataclasses.fields(nested[field.name]))


def _library() -> Iterator[str]:
    """Names of the package, and what a node list takes and does."""
    import xdp_gossip
    from xdp_gossip import AsyncNodeList

    yield from xdp_gossip.__all__
    for name in inspect.signature(AsyncNodeList).parameters:
        yield f"NodeList({name})"
    for name, member in vars(AsyncNodeList).items():
        if not name.startswith("_") and (callable(member) or isinstance(member, property)):
            yield f"AsyncNodeList.{name}"


def _plugins() -> Iterator[str]:
    """``xdp_gossip_publish``, ``xdp_gossip_publish.key``; shared connection options as ``connection.endpoints``."""
    files = [
        *sorted((ROOT / "plugins").glob("modules/xdp_gossip_*.py")),
        *sorted((ROOT / "plugins").glob("inventory/[!_]*.py")),
        *sorted((ROOT / "plugins").glob("lookup/[!_]*.py")),
        *sorted((ROOT / "extensions/eda/plugins/event_source").glob("[!_]*.py")),
        ROOT / "plugins" / "doc_fragments" / "connection.py",
    ]
    for path in files:
        yield path.stem
        for text in _documentation(path):
            yield from (f"{path.stem}.{option}" for option in (yaml.safe_load(text) or {}).get("options", {}))


def _documentation(path: Path) -> Iterator[str]:
    """The texts assigned to DOCUMENTATION, in a plugin or in a fragment's class."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if names & {"DOCUMENTATION"} or (path.parent.name == "doc_fragments" and "options:" in node.value.value):
                yield node.value.value


def _role_options() -> Iterator[str]:
    for role in sorted(path.name for path in (ROOT / "roles").iterdir() if path.is_dir()):
        yield role
        specs = yaml.safe_load((ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text())["argument_specs"]
        common = specs["main"].get("options", {})
        yield from (f"{role}.{option}" for option in common)
        for entry, spec in specs.items():
            if entry != "main":
                yield f"{role}/{entry}"
                yield from (f"{role}/{entry}.{option}" for option in spec.get("options", {}) if option not in common)


def _headings() -> Iterator[str]:
    """``README.md, Use cases``: each heading of the second and third level, outside of code."""
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.M | re.S)
        for heading in re.findall(r"^###? (.+)$", text, flags=re.M):
            yield f"{path.relative_to(ROOT)}, {heading.strip()}"


# -- what is proved ----------------------------------------------------------------------------------------------


@functools.cache
def _functions(path: Path) -> frozenset[str]:
    """``test_x`` and ``TestY::test_x`` of a file."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return frozenset(found)


def missing(test: str) -> str | None:
    """Why ``test`` is none; None when it is there."""
    file, _, function = test.partition("::")
    path = ROOT / file
    if not path.is_file():
        return f"{file}: there is no such file"
    if path.suffix == ".py" and not function.rpartition("::")[2].startswith("test_"):
        return f"{test}: expected FILE::FUNCTION"
    if path.suffix == ".py" and function not in _functions(path):
        return f"{file}: there is no {function} in it"
    return None if file in _tracked() else f"{file}: git does not know it"


@functools.cache
def _tracked() -> frozenset[str]:
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return frozenset(done.stdout.splitlines())


Results = Mapping[str, Mapping[str, list[str]]]


def read_reports(directory: Path) -> Results:
    """Outcomes (passed, skipped, failed) of every case: target -> ``FILE::FUNCTION`` -> outcomes."""
    found: dict[str, dict[str, list[str]]] = {}
    for file in sorted(directory.glob("*/**/*.xml")):
        target = found.setdefault(file.relative_to(directory).parts[0], {})
        for case in ET.parse(file).getroot().iter("testcase"):
            name = re.sub(r"\[.*", "", case.get("name", ""), flags=re.S)
            parts = case.get("classname", "").split(".")
            outcome = "passed"
            for child in case:
                if child.tag in ("failure", "error"):
                    outcome = "failed"
                elif child.tag == "skipped":
                    outcome = "skipped"
            target.setdefault(_test_id(parts, name), []).append(outcome)
    return found


def _test_id(parts: list[str], name: str) -> str:
    """``tests/agent/test_x.py::TestY::test_z`` of a classname like ``tests.agent.test_x.TestY``.

    ansible-test may put the collection's own path before it.
    """
    if "tests" in parts:
        parts = parts[parts.index("tests") :]
    split = next((index for index, part in enumerate(parts) if part.startswith("test_")), len(parts) - 1)
    return "::".join(["/".join(parts[: split + 1]) + ".py", *parts[split + 1 :], name])


def unproved(ledger: Ledger, results: Results, strict: bool) -> list[str]:
    """What is wrong with each claim whose tests did not all pass, though what they need is there.

    ``strict``, for CI: everything is there.
    """
    outcomes: dict[str, list[str]] = {}
    for cases in results.values():
        for test, found in cases.items():
            outcomes.setdefault(test, []).extend(found)
    problems = []
    for claim in ledger.claims.values():
        absent = sorted(need for need in claim.needs if not NEEDS[need]())
        if absent and not strict:
            continue
        for test in claim.tests:
            if not test.partition("::")[0].endswith(".py"):
                continue  # a scenario or a target is run as a whole: its step fails by itself
            found = outcomes.get(test, [])
            if not found:
                problems.append(f"{claim.feature}: {test} was not run")
            elif "failed" in found:
                problems.append(f"{claim.feature}: {test} failed")
            elif "passed" not in found:
                problems.append(f"{claim.feature}: {test} was skipped, though {_there(claim)}")
    return problems


def _there(claim: Claim) -> str:
    return f"{', '.join(sorted(claim.needs))} is there" if claim.needs else "it needs nothing"


def main(arguments: list[str]) -> int:
    """0 when the reports prove every claim, 1 when not, 2 when there are no reports."""
    if len(arguments) != 1:
        print("usage: python -m tests.claims REPORTS", file=sys.stderr)
        return 2
    results = read_reports(Path(arguments[0]))
    if not any(results.values()):
        print(f"{arguments[0]}: expected the JUnit reports of `make test`, found none", file=sys.stderr)
        return 2
    ledger = with_threats(read_ledger())
    strict = bool(os.environ.get("CI"))
    absent = () if strict else [need for need, there in NEEDS.items() if not there()]
    problems = unproved(ledger, results, strict=strict)
    problems += systems.problems(systems.README.read_text(encoding="utf-8"), Path(arguments[0]), absent)
    for problem in problems:
        print(problem)
    print(f"{len(ledger.claims)} claims, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "agent"))
    sys.exit(main(sys.argv[1:]))
