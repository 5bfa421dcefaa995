# SPDX-License-Identifier: MIT
"""The tables of docs/protocol.md are what the code says: timers, invariants, states.

tests/sim/test_protocol_page.py plays the diagrams of the page.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import math
import pkgutil
import random
import re
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from types import ModuleType

import pytest

from tests.pages import ROOT, found, page, rows
from tests.support.keys import KEY
from xdp_gossip import core
from xdp_gossip.core.documents.clock import HybridClock
from xdp_gossip.core.engine import Engine
from xdp_gossip.core.events import Rumor
from xdp_gossip.core.members.membership import Membership
from xdp_gossip.core.members.timing import Timing
from xdp_gossip.core.settings import Settings, knobs
from xdp_gossip.core.types import Address, Node, Now
from xdp_gossip.wire.keys import Keyring
from xdp_gossip.wire.native import NativeCodec

PAGE = page("protocol.md")
#: What the agent makes of `cycle` and `timeout` when both are automatic.
TIMEOUT_CYCLES = knobs(Settings)["timeout_cycles"].agent_default
AGENT = replace(Settings(), cycle=0.0, timeout=0.0, timeout_cycles=TIMEOUT_CYCLES)


TIMERS = [[*row[:-1], row[-1].strip("`")] for row in rows(PAGE, "| timer | seconds | formula |")]


def timing(members: int, settings: Settings = AGENT) -> Timing:
    """The times of a cluster of ``members``, the local one included."""
    now = Now(0.0, 0)
    membership = Membership(Address("198.18.0.1", 8000), members, random.Random(0))
    for number in range(1, members):
        membership.add(Address(f"198.18.{number // 250}.{number % 250 + 1}", 8001), now)
    return Timing(settings, membership)


def numbers_in(source: object) -> set[float]:
    """The numbers that stand in a function, a property or a class."""
    code = source.fget if isinstance(source, property) else source
    tree = ast.parse(textwrap.dedent(inspect.getsource(code)))  # type: ignore[arg-type]
    return {float(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant) and _is_number(node.value)}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@pytest.mark.parametrize("row", TIMERS, ids=[row[0] for row in TIMERS])
def test_a_timer_is_that_of_the_code(row: list[str]) -> None:
    _name, seconds, formula, _set_by, source = row
    told = float(seconds.split()[0]) if seconds else None
    value = found(source)
    if _is_number(value):
        assert told == pytest.approx(value)
    elif source.startswith("core.members.timing.Timing."):
        name = source.rpartition(".")[2]
        for members in (1, 3, 250, 1000, 5000):
            times = timing(members)
            known = {"members": members, "cycle": times.cycle, "timeout": times.timeout}
            known.update(timeout_cycles=TIMEOUT_CYCLES, max=max, min=min)
            code = re.findall(r"`([^`]+)`", formula)[0]
            assert getattr(times, name) == pytest.approx(eval(code, {"__builtins__": {}}, known)), (members, code)
        assert getattr(timing(3), name) == pytest.approx(told, rel=1e-3)
    else:
        codes = " ".join(re.findall(r"`([^`]+)`", formula))
        told_numbers = {float(number) for number in re.findall(r"\d+(?:\.\d+)?", codes)}
        assert told_numbers <= numbers_in(value)


def constants(package: ModuleType) -> Iterator[tuple[str, float]]:
    """Each time that a module of ``package`` states: numbers with a fraction are seconds."""
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if isinstance(value, float) and re.fullmatch(r"_?[A-Z][A-Z_]*", name) and _assigned(module, name):
                yield f"{info.name.partition('.')[2]}.{name}", value


def _assigned(module: ModuleType, name: str) -> bool:
    return re.search(rf"(?m)^(?:[\w, ]+, )?{name}\b[^=\n]*= ", inspect.getsource(module)) is not None


def test_no_timer_of_the_core_is_missing() -> None:
    known = {row[4] for row in TIMERS}
    # Ranges of settings are no timers.
    stated = {name: value for name, value in constants(core) if not name.startswith("core.settings.")}
    assert len(stated) > 20
    assert sorted(stated.keys() - known) == [], "timers of the core that docs/protocol.md does not have"


def test_what_the_library_has_otherwise() -> None:
    usual = Settings()
    assert f"`cycle` {usual.cycle:g} s and `timeout_cycles` {usual.timeout_cycles}" in re.sub(r"\s+", " ", PAGE)


def test_the_time_until_a_silent_member_is_removed() -> None:
    times = timing(3)
    (formula, told) = re.findall(r"is removed after `([^`]+)`: ([\d.]+) s", PAGE)[0]
    known = {"timeout": times.timeout, "probe_gap": times.probe_gap, "local_health": 0}
    assert eval(formula, {"__builtins__": {"max": max}}, known) == pytest.approx(float(told))


INVARIANTS = rows(PAGE, "| invariant | formula | held by |")


@pytest.mark.parametrize("row", INVARIANTS, ids=[row[0] for row in INVARIANTS])
def test_what_holds_an_invariant_exists(row: list[str]) -> None:
    path, _, name = row[2].strip("`").partition(": ")
    file = ROOT / path if path.startswith("tests/") else ROOT / "agent" / "xdp_gossip" / path
    names = set()
    for outer in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(outer, ast.ClassDef):
            names |= {f"{outer.name}.{inner.name}" for inner in outer.body if isinstance(inner, ast.FunctionDef)}
        elif isinstance(outer, ast.FunctionDef):
            names.add(outer.name)
    assert name in names


def engine() -> Engine:
    codec = NativeCodec(Keyring.single("c", KEY), bytes(4))
    return Engine(Node("198.18.0.1", 8000), Settings(cycle=1.0), codec, random.Random(1), 1)


def test_a_new_version_leaves_room_for_the_end_of_the_former_one() -> None:
    one, now = engine(), Now(10.0, 1_700_000_000 * 10**9)
    one.start(now)
    former = one.documents.publish("k", b"1", now)[0]
    assert former.ended.version.hlc == former.version.hlc + 1
    later = one.documents.publish("k", b"2", now)[0]
    assert later.version.hlc >= former.version.hlc + 2
    assert "`reading(new) >= reading(held) + 2`" in PAGE and HybridClock(0).tick(0) == 1


@pytest.mark.parametrize("members", [2, 3, 50])
def test_a_rumor_starts_with_the_ttl_of_the_page(members: int) -> None:
    one, now = engine(), Now(10.0, 1_700_000_000 * 10**9)
    for number in range(2, members + 1):
        one.seed(Node(f"198.18.0.{number}", 8000), now)
    one.start(now)
    rumors = [sent for sent in one.take_transmits() if isinstance(sent, Rumor)]
    told = re.findall(r"`ttl = ([^`]+)`", PAGE)[0]
    expected = eval(told, {"ceil": math.ceil, "log2": math.log2, "N": members})
    assert {NativeCodec(Keyring.single("c", KEY), bytes(4)).parse(rumor.data).ttl for rumor in rumors} == {expected}
