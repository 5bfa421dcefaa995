# SPDX-License-Identifier: MIT
"""Words that have a better one here: which texts `make lint` refuses, what it takes for prose, and what it says."""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from xdp_gossip.cli.main import build_parser

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / ".ci" / "words"


def load() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("words", str(SCRIPT))
    spec = importlib.util.spec_from_loader("words", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["words"] = module  # a NamedTuple looks its module up
    loader.exec_module(module)
    return module


words = load()


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("docs/a.md", "one\nMembers exchange digests.\n", "docs/a.md:2: 'exchange': write sync, or: replace"),
        ("a.py", "x = 1\n# It is the seed's rule.\n", 'a.py:2: "the seed\'s": write PekoNode'),
        ("a.py", 'def f():\n    """First.\n\n    The state digest.\n    """\n', "a.py:4: 'state digest'"),
        ("plugins/a.py", "DOCUMENTATION = '''\ndescription: it says goodbye\n'''\n", "plugins/a.py:2: 'goodbye'"),
        ("bpf/a.c", "int a;\n/* Any doubt. */\n", "bpf/a.c:2: 'doubt': write local health"),
        ("a.yml", "a: 1\nb: Swap with one member\n", "a.yml:2: 'Swap': write sync"),
        ("docs/a.md", "It waits for ever.\n", "docs/a.md:1: 'for ever': write forever"),
        ("a.py", "# Nobody can tell\n", "a.py:1: 'Nobody can tell'"),
        ("Makefile", "a: ## exchanged\n", "Makefile:1: 'exchanged'"),
    ],
)
def test_a_word_is_found_where_it_stands(name: str, text: str, found: str) -> None:
    (problem,) = words.problems(name, text)
    assert problem.startswith(found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("docs/a.md", "`exchange.py` syncs.\n\n```sh\nexchange a b\n```\n"),
        ("a.py", "exchange = 'exchange'\n"),
        ("docs/pekonode.md", "A swap request.\n"),
        ("a.c", "int exchange;\n"),
        ("LICENSE", "exchange\n"),
    ],
)
def test_code_and_other_wires_keep_their_names(name: str, text: str) -> None:
    assert list(words.problems(name, text)) == []


def test_it_says_where_and_fails(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    page.write_text("A farewell.\n")
    done = subprocess.run([SCRIPT, str(page)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, f"{page}:1: 'farewell': write leave\n")


@pytest.mark.slow
def test_the_tree_has_none_of_them() -> None:
    done = subprocess.run([SCRIPT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def commands(parser: argparse.ArgumentParser) -> set[str]:
    found = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return {name for choices in found for name in choices}


def test_every_command_that_a_text_names_exists() -> None:
    """A remedy that names a command which is not there helps nobody."""
    known = commands(build_parser())
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True, timeout=60)
    named = []
    for path in listed.stdout.split("\0"):
        if path.startswith(("agent/xdp_gossip/", "docs/", "README.md", "plugins/", "roles/")):
            text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
            # In quotes or after a prompt: prose speaks of the package xdp-gossip as well.
            quoted = re.findall(r"(?:[`'\"]|\$ )xdp-gossip ([a-z][a-z-]*)\b(?![:.=/])", text)
            named += [(path, name) for name in quoted]
    assert len(named) > 50
    assert [(path, name) for path, name in named if name not in known] == []
