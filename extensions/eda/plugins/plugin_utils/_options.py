# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: checks the arguments of the event source."""

from __future__ import annotations

import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._nodes import STATES
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError, Settings

#: Types of events about nodes, zones, documents, convergence and the source itself.
NODE_EVENTS = ("join", "recover", "suspect", "agent_down", "dead", "leave", "update")
ZONE_EVENTS = ("zone_lost", "zone_returned")
DOCUMENT_EVENTS = ("document_changed", "document_deleted", "document_refused")
AGREEMENT_EVENTS = ("convergence_reached", "convergence_lost")
SOURCE_EVENTS = ("fleet_unreachable", "fleet_reachable")
EVENTS = NODE_EVENTS + ZONE_EVENTS + DOCUMENT_EVENTS + AGREEMENT_EVENTS + SOURCE_EVENTS

#: Name of an argument -> Python types that its YAML value may have.
ARGUMENTS: dict[str, tuple[type, ...]] = {
    "endpoints": (list,),
    "token": (str,),
    "token_file": (str,),
    "ca_path": (str,),
    "client_cert": (str,),
    "client_key": (str,),
    "validate_certs": (bool,),
    "timeout": (int, float),
    "events": (list,),
    "states": (list,),
    "prefix": (str,),
    "initial": (bool,),
    "settle": (int, float),
    "poll": (int, float),
}

#: Argument that ansible-rulebook itself adds.
_NOT_OURS = "eda_feedback_queue"
_NAMES = {str: "text", list: "a list", bool: "true or false", int: "a number", float: "a number"}


class Options:
    """The checked arguments of one event source.

    Raises ``ConfigError`` if an argument is invalid; the message names the argument and the expected value.
    """

    def __init__(self, args: t.Mapping[str, t.Any]) -> None:
        self._args = {name: value for name, value in args.items() if name != _NOT_OURS and value is not None}
        for name, value in self._args.items():
            _check_type(name, value)
        self.events = _chosen("events", self._args, EVENTS)
        self.states = _chosen("states", self._args, STATES)
        self.prefix: str = self._args.get("prefix", "")
        if len(self.prefix.encode("utf-8", "replace")) > 512:
            raise ConfigError("prefix: expected at most 512 bytes")
        self.initial: bool = self._args.get("initial", False)
        self.settle = _seconds("settle", self._args.get("settle", 5), 0, 3600)
        self.poll = _seconds("poll", self._args.get("poll", 20), 1, 60)
        for url in self._args.get("endpoints", []):
            if not isinstance(url, str):
                raise ConfigError(f"endpoints: expected a list of URLs, got {type(url).__name__} in it")
        self.settings()

    def settings(self) -> Settings:
        """Read the connection options, and the token and certificates from their files.

        Each call reads these files again.
        """
        return Settings(self._args)

    def wants(self, event: t.Mapping[str, t.Any]) -> bool:
        """Return whether the arguments ``events`` and ``states`` select an event."""
        if event["type"] not in self.events:
            return False
        return "node" not in event or event["node"]["state"] in self.states


def _check_type(name: str, value: t.Any) -> None:
    types = ARGUMENTS.get(name)
    if types is None:
        known = ", ".join(ARGUMENTS)
        raise ConfigError(f"{name}: expected one of the arguments {known}")
    # In Python, a bool is also an int, so reject true and false where a number is expected.
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ConfigError(f"{name}: expected {_NAMES[types[0]]}, got {type(value).__name__}")


def _chosen(name: str, args: t.Mapping[str, t.Any], known: tuple[str, ...]) -> frozenset[str]:
    chosen = args.get(name, known)
    for word in chosen:
        if word not in known:
            choices = ", ".join(known)
            raise ConfigError(f"{name}: expected some of {choices}, got {word!r}")
    return frozenset(chosen)


def _seconds(name: str, value: float, least: float, most: float) -> float:
    if not least <= value <= most:
        raise ConfigError(f"{name}: expected {least:g} to {most:g} seconds, got {value!r}")
    return float(value)
