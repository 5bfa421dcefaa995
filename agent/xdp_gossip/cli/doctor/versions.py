# SPDX-License-Identifier: MIT
"""Checks whether all members run the same release, and whether the running agent is of the installed release."""

from __future__ import annotations

from collections.abc import Iterator

from ... import __version__
from .finding import Finding, Subject
from .look import Look
from .members import named, several

_SAYS = Subject("version", mixed="warning", installed="warning", wire="warning")


def examine(look: Look) -> Iterator[Finding]:
    """Yield findings about the releases of the members, which each member announces about itself."""
    status = look.status
    if status is None:
        return
    wrong = []
    if look.local and status["version"] != __version__:
        text = f"the agent runs {status['version']}, this command is of {__version__}"
        wrong.append(_SAYS("installed", text, "systemctl restart xdp-gossip, if the release was changed"))
    releases: dict[str, list[str]] = {}
    for node in look.nodes:
        if node["record_known"] and node["version"] and node["state"] in ("alive", "suspect"):
            releases.setdefault(node["version"], []).append(named(node))
    if len(releases) > 1:
        text = "; ".join(f"{version}: {several(names)}" for version, names in sorted(releases.items()))
        remedy = "nothing while an upgrade is under way; else run xdp_gossip.fleet.upgrade to its end"
        wrong.append(_SAYS("mixed", f"members run {len(releases)} releases: {text}", remedy))
    foreign = look.counters.get("rx_foreign_version", 0)
    if foreign:
        text = f"{foreign} packets of another wire version arrived: such members and this one do not hear each other"
        wrong.append(_SAYS("wire", text, "run xdp_gossip.fleet.upgrade to its end on all hosts"))
    yield from wrong
    if not wrong:
        yield _SAYS.ok(f"{', '.join(releases) or status['version']} everywhere")
