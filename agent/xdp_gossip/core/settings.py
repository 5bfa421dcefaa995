# SPDX-License-Identifier: MIT
"""What can be set, declared once: the kind of declaration, and the settings that the protocol reads.

A setting is a field of a dataclass. :func:`setting` gives the field its default and a :class:`Knob`: meaning, unit and
range, for the library and for ``agent.yml``. Two readers follow it: the library's (:mod:`xdp_gossip.node.parameters`)
and that of ``agent.yml`` (:mod:`xdp_gossip.config.reader`). ``.ci/tables`` writes the tables of the
documentation, and ``tests/tools/test_settings.py`` compares the variables of the role.

Here are the settings that an engine reads. :mod:`xdp_gossip.config.settings` adds those of the node around it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import checks

#: Bytes of the largest payload that a UDP datagram over IPv4 holds: 65,535 less the headers of IP and UDP.
MAX_DATAGRAM = 65_507
#: Bytes of the largest packet on PekoNode's wire over TCP. Go's ``Size`` has no bound; this one bounds memory.
MAX_OBJECT = 16 * 1024 * 1024

#: States of a key slot. Packets signed with any slot are accepted; only the active slot signs.
KEY_STATES = ("staged", "active", "retiring")

_DAY = 86_400.0
_TEN_YEARS = 10 * 366 * _DAY
_KNOB = "knob"


@dataclass(frozen=True)
class AgentYml:
    """How a setting in ``agent.yml`` differs from the library. None for the default, least or most: as in the library.

    ``least`` and ``most``: a narrower range, because an operator's typing error is likelier than an extreme value.
    ``key``: the name of the setting in the file, "" for the field's name; None: there is no such key, the agent sets
    the value itself. ``reload``: a running agent takes a new value over on SIGHUP; any other setting needs a restart.
    ``pattern``: a regular expression that a text must match. ``words``: the rule in words.
    """

    default: Any = None
    least: float | None = None
    most: float | None = None
    key: str | None = ""
    reload: bool = False
    pattern: str = ""
    words: str = ""


@dataclass(frozen=True)
class Knob:
    """The declaration of one setting. Its name is the name of the field.

    ``doc``: a sentence fragment for tables, without a full stop at its end. ``unit``: seconds, bytes, versions, ...
    ``least``, ``most``: the range of a number, or the bytes of UTF-8 of a text. ``choices``: the allowed texts.
    ``auto``: the meaning of the value 0, which ``agent.yml`` spells ``auto``. ``never``: infinity is allowed; the
    library spells it None, ``agent.yml`` ``never``. ``any_case``: the library accepts ``choices`` in any case.
    ``words``: the rule for a value that is no plain number, flag, choice or text; such a value has a check of its own.
    """

    default: Any
    doc: str
    unit: str = ""
    least: float = 0
    most: float = checks.MOST_TEXT
    choices: tuple[str, ...] = ()
    any_case: bool = False
    auto: str = ""
    never: bool = False
    secret: bool = False
    words: str = ""
    agent: AgentYml = AgentYml()

    @property
    def kind(self) -> type:
        """The type of a value: bool, int, float or str if :meth:`check` can check it."""
        return type(self.default)

    @property
    def agent_default(self) -> Any:
        """The default of ``agent.yml``."""
        return self.default if self.agent.default is None else self.agent.default

    @property
    def agent_range(self) -> tuple[float, float]:
        """Least and most in ``agent.yml``."""
        least = self.least if self.agent.least is None else self.agent.least
        return least, self.most if self.agent.most is None else self.agent.most

    @property
    def agent_choices(self) -> tuple[str, ...]:
        """The allowed texts in ``agent.yml``: in the same order, but its own default comes first if it has one."""
        first = 0 if self.agent.default is None else self.choices.index(self.agent.default)
        return self.choices[first:] + self.choices[:first]

    def check(self, name: str, value: object) -> Any:
        """Check a value that a program passed as ``name``.

        Returns the value to use. Raises ``TypeError`` or ``ValueError``.
        """
        if self.words:
            raise AssertionError(f"{name}: expected a check of its own")
        if self.never and value is None:
            return math.inf
        if self.kind is bool:
            return checks.flag(name, value)
        if self.choices:
            return checks.choice(name, value, self.choices, self.any_case)
        if self.kind is str:
            return checks.text(name, value, int(self.least), int(self.most), self.secret)
        least = 0 if self.auto else self.least
        if self.kind is int:
            return checks.integer(name, value, int(least), int(self.most))
        found = checks.number(name, value, least, self.most)
        if 0 < found < self.least:
            checks.refuse(name, f"0, or a number from {self.least:g} to {self.most:g}", value)
        return found


def setting(default: Any, doc: str, **more: Any) -> Any:
    """Declare a dataclass field as a setting. ``more`` takes the other fields of :class:`Knob`."""
    knob = Knob(default, doc, **more)
    return dataclasses.field(default=default, repr=not knob.secret, metadata={_KNOB: knob})


def knobs(kind: type) -> Mapping[str, Knob]:
    """The settings that a dataclass declares, by name, in the order of their declaration."""
    fields = dataclasses.fields(kind)
    return {field.name: field.metadata[_KNOB] for field in fields if _KNOB in field.metadata}


def file_keys(kind: type) -> dict[str, str]:
    """Key in ``agent.yml`` -> name of the field, for the section that a dataclass declares."""
    return {knob.agent.key or name: name for name, knob in knobs(kind).items() if knob.agent.key is not None}


@dataclass(frozen=True)
class Limits:
    """Limits on what others can make this node keep. Raises ``TypeError`` or ``ValueError`` for a wrong value."""

    document: int = setting(
        16 * 1024 * 1024,
        "the largest document",
        unit="bytes",
        least=1,
        most=2**40,
        agent=AgentYml(least=1024, most=256 * 1024 * 1024),
    )
    nodes: int = setting(
        20_000, "nodes known", unit="nodes", least=1, most=2**40, agent=AgentYml(least=2, most=100_000)
    )
    documents: int = setting(
        100_000, "documents held", unit="documents", least=1, most=2**40, agent=AgentYml(most=1_000_000)
    )
    store: int = setting(
        1024 * 1024 * 1024,
        "all documents together",
        unit="bytes",
        least=1,
        most=2**40,
        agent=AgentYml(least=1024 * 1024, most=64 * 1024 * 1024 * 1024),
    )

    def __post_init__(self) -> None:
        for name, knob in knobs(Limits).items():
            knob.check(f"limits.{name}", getattr(self, name))


@dataclass(frozen=True)
class Settings:
    """The settings that an engine reads. Defaults are those of PekoNode.

    A program that makes one by hand, such as the simulator, is trusted: only :class:`Limits` checks itself.
    """

    amount: int = setting(
        3,
        "fan-out: how many nodes a heartbeat is sent to, and relayed to by each node that sees it first",
        unit="nodes",
        least=1,
        most=64,
        agent=AgentYml(default=4),
    )
    # The least: more than 20 heartbeats a second carry no news, and a tiny cycle would spin.
    cycle: float = setting(
        6.0,
        "time between heartbeats",
        unit="seconds",
        least=0.05,
        most=_DAY,
        auto="1 s up to 250 nodes, then nodes/250 s",
        agent=AgentYml(default=0.0, most=3600),
    )
    # A timeout not above the cycle counts as auto, as in PekoNode. agent.yml refuses it instead.
    timeout: float = setting(
        0.0,
        "silence after which a node becomes suspect",
        unit="seconds",
        least=0,
        most=_DAY,
        auto="timeout_cycles x cycle + 2 s",
        agent=AgentYml(least=0.1),
    )
    timeout_cycles: int = setting(
        3,
        "the automatic `timeout` is `timeout_cycles` x cycle + 2 s",
        unit="cycles",
        least=1,
        most=1_000,
        agent=AgentYml(default=5, key=None),
    )
    # PekoNode's wire has another range: config.settings.rules.
    size: int = setting(
        16384,
        "the longest datagram and the longest TCP frame; longer documents are sent in chunks. "
        "At most 16 MiB with `wire` pekonode over TCP",
        unit="bytes",
        least=4096,
        most=MAX_DATAGRAM,
    )
    max_clock_drift: float = setting(
        60.0,
        "by how much the clocks of two nodes may differ",
        unit="seconds",
        least=0.001,
        most=_TEN_YEARS,
        agent=AgentYml(least=0.1, most=_DAY),
    )
    limits: Limits = setting(Limits(), "bounds on what others can make this node keep", words="`Limits`")
    tombstone_grace: float = setting(
        7 * _DAY,
        "how long members remember a deletion and report it to each other",
        unit="seconds",
        least=1,
        most=_TEN_YEARS,
        agent=AgentYml(least=3600),
    )
    wait_for_members: float = setting(
        60.0,
        "time after its start until a node counts as caught up if no member answers",
        unit="seconds",
        least=0,
        most=_TEN_YEARS,
        never=True,
        agent=AgentYml(most=_DAY),
    )
    expects_seeds: bool = setting(
        False,
        "seeds are added after the node has joined, so a node without seeds does not count as alone",
        agent=AgentYml(key=None),
    )
