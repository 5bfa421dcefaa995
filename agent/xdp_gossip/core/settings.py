# SPDX-License-Identifier: MIT
"""Declares the settings that an engine reads, and defines the classes with which settings are declared.

A setting is a field of a dataclass. The function :func:`setting` gives the field its default and a :class:`Knob` with
its meaning, unit and range, for the library and for ``agent.yml``. The library (:mod:`xdp_gossip.node.parameters`) and
the reader of ``agent.yml`` (:mod:`xdp_gossip.config.reader`) use these declarations to check values. ``.ci/tables``
writes the tables of the documentation from the declarations, and ``tests/tools/test_settings.py`` compares the
declarations with the role's variables.

The module :mod:`xdp_gossip.config.settings` declares the settings that no engine reads.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import checks
from .types import MAX_ZONE

#: Maximum payload of a UDP datagram over IPv4, in bytes: 65,535 less the headers of IP and UDP.
MAX_DATAGRAM = 65_507
#: Maximum bytes of a packet on PekoNode's wire over TCP. PekoNode's own ``Size`` has no maximum. Here a maximum limits
#: the memory that one packet can use.
MAX_OBJECT = 16 * 1024 * 1024

#: States of a key. A node accepts packets that are signed with any of its keys, and signs its own packets with the
#: active key.
KEY_STATES = ("staged", "active", "retiring")

_DAY = 86_400.0
_TEN_YEARS = 10 * 366 * _DAY
_KNOB = "knob"


@dataclass(frozen=True)
class AgentYml:
    """How a setting in ``agent.yml`` differs from the same setting in the library.

    If ``default``, ``least`` or ``most`` is None, ``agent.yml`` uses the same value as the library.

    ``agent.yml`` may allow a narrower range than the library, because an extreme value in a file is probably a typing
    error. ``key``: the name of the setting in ``agent.yml``. If ``key`` is "", the name is that of the dataclass field.
    If ``key`` is None, ``agent.yml`` does not have the setting, because the agent computes the value. ``reload``: a
    running agent applies a new value on SIGHUP; any other setting needs a restart. ``pattern``: regular expression that
    a text must match. ``words``: description of ``pattern`` for messages and tables.
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
    """The declaration of one setting. The setting's name is the name of the dataclass field.

    ``doc``: description of the setting for tables of the documentation, without a full stop. ``unit``: seconds, bytes,
    versions, ... ``least``, ``most``: minimum and maximum of a number, or of the length of a text in bytes of UTF-8.
    ``choices``: the allowed texts. ``auto``: description of what the value 0 means, which a user writes as ``auto`` in
    ``agent.yml``.
    ``never``: whether the setting may be infinite (None in the library, ``never`` in ``agent.yml``). ``any_case``:
    whether the library ignores the case of letters when it compares a value with ``choices``. ``words``: description of
    the allowed values if separate code checks them, because the values are not plain numbers, flags, choices or texts.
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
        """The type of the setting's value. The method :meth:`check` supports only bool, int, float and str."""
        return type(self.default)

    @property
    def agent_default(self) -> Any:
        """The default of the setting in ``agent.yml``."""
        return self.default if self.agent.default is None else self.agent.default

    @property
    def agent_range(self) -> tuple[float, float]:
        """The minimum and the maximum of the setting in ``agent.yml``."""
        least = self.least if self.agent.least is None else self.agent.least
        return least, self.most if self.agent.most is None else self.agent.most

    @property
    def agent_choices(self) -> tuple[str, ...]:
        """The texts that ``agent.yml`` allows, rotated so that the default in ``agent.yml`` comes first."""
        first = 0 if self.agent.default is None else self.choices.index(self.agent.default)
        return self.choices[first:] + self.choices[:first]

    def check(self, name: str, value: object) -> Any:
        """Check a ``value`` that a program passed to the library for the setting ``name``.

        Returns the value to use. If ``value`` is None and the setting allows None, the result is infinity. Raises
        ``TypeError`` or ``ValueError``.
        """
        if self.words:
            raise AssertionError(f"{name}: expected separate code to check this setting")
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
    """Declare a dataclass field as a setting. ``more``: values for further fields of :class:`Knob`."""
    knob = Knob(default, doc, **more)
    return dataclasses.field(default=default, repr=not knob.secret, metadata={_KNOB: knob})


def knobs(kind: type) -> Mapping[str, Knob]:
    """The settings that a dataclass declares, by name, in the order of their declaration."""
    fields = dataclasses.fields(kind)
    return {field.name: field.metadata[_KNOB] for field in fields if _KNOB in field.metadata}


def file_keys(kind: type) -> dict[str, str]:
    """Return the names of the fields of the dataclass ``kind``, by the keys that they have in ``agent.yml``."""
    return {knob.agent.key or name: name for name, knob in knobs(kind).items() if knob.agent.key is not None}


@dataclass(frozen=True)
class Limits:
    """Limits on the data that other nodes can make this node store.

    The constructor raises ``TypeError`` or ``ValueError`` for a wrong value.
    """

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
    """The settings that an engine reads. The defaults are those of PekoNode.

    The constructor checks only ``limits``, because only trusted code such as the simulator calls the constructor
    directly.
    """

    amount: int = setting(
        3,
        "fan-out: number of nodes to which a node sends its heartbeat, and to which it relays each new heartbeat",
        unit="nodes",
        least=1,
        most=64,
        agent=AgentYml(default=4),
    )
    # The minimum is 0.05 s, because more than 20 heartbeats a second have no use, and would keep the processor busy all
    # the time.
    cycle: float = setting(
        6.0,
        "time between heartbeats",
        unit="seconds",
        least=0.05,
        most=_DAY,
        auto="1 s up to 250 nodes, then nodes/250 s",
        agent=AgentYml(default=0.0, most=3600),
    )
    # A timeout must be greater than the cycle. As in PekoNode, the engine treats a shorter or equal timeout as
    # ``auto``, but the reader of agent.yml rejects it.
    timeout: float = setting(
        0.0,
        "time without packets from a node after which this node becomes suspect",
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
    # PekoNode's wire allows a different range: see config.settings.rules.
    size: int = setting(
        16384,
        "the longest datagram and the longest TCP frame; nodes send longer documents in chunks. "
        "At most 16 MiB with `wire` pekonode over TCP",
        unit="bytes",
        least=4096,
        most=MAX_DATAGRAM,
    )
    max_clock_drift: float = setting(
        60.0,
        "maximum difference between the clocks of two nodes",
        unit="seconds",
        least=0.001,
        most=_TEN_YEARS,
        agent=AgentYml(least=0.1, most=_DAY),
    )
    zone: str = setting(
        "",
        "zone of the node, such as a data centre: members send most copies of a rumor to members of their own zone",
        unit="bytes of UTF-8",
        most=MAX_ZONE,
        agent=AgentYml(
            pattern="(?:[A-Za-z0-9][A-Za-z0-9._-]{0,63})?",
            words="empty, or 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit",
        ),
    )
    limits: Limits = setting(Limits(), "bounds on the nodes and documents that this node stores", words="`Limits`")
    tombstone_grace: float = setting(
        7 * _DAY,
        "how long members remember a deletion and report the deletion to each other",
        unit="seconds",
        least=1,
        most=_TEN_YEARS,
        agent=AgentYml(least=3600),
    )
    wait_for_members: float = setting(
        60.0,
        "time that a started node waits for a member's answer; after this time, the node counts as caught up "
        "without an answer",
        unit="seconds",
        least=0,
        most=_TEN_YEARS,
        never=True,
        agent=AgentYml(most=_DAY),
    )
    expects_seeds: bool = setting(
        False,
        "set this if the program adds seeds after the join: until then, the node does not assume that it is alone",
        agent=AgentYml(key=None),
    )
