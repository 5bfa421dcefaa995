# SPDX-License-Identifier: MIT
"""Checks the key slots: whether a rotation is in progress, and whether members are at different steps of the
rotation.
"""

from __future__ import annotations

from collections.abc import Iterator

from .finding import Finding, Subject
from .look import Look
from .members import named, several

_SAYS = Subject("key", rotation="note", others="warning", unknown="warning", wrong="warning")


def examine(look: Look) -> Iterator[Finding]:
    """Check which key this node signs with, which keys it accepts, and which keys the other members sign with."""
    if look.status is None:
        return
    slots = {slot["id"]: slot["state"] for slot in look.keys}
    active = next((number for number, state in slots.items() if state == "active"), None)
    used: dict[int, list[str]] = {}
    for node in look.nodes:
        if not node["local"] and node["state"] in ("alive", "suspect") and node.get("key_slot") is not None:
            used.setdefault(node["key_slot"], []).append(named(node))
    if active is not None:
        yield _SAYS.ok(f"slot {active} signs, {', '.join(map(str, slots))} accepted")
    yield from _rotation(slots, used)
    for number, names in sorted(used.items()):
        if number != active and active is not None:
            state = slots.get(number, "unknown")
            text = f"slot {active} signs here, {several(names)} sign with slot {number} ({state} here)"
            yield _SAYS("others", text, "finish the rotation: the same slot active on every member, then restart it")
    yield from _refused(look)


def _rotation(slots: dict[int, str], used: dict[int, list[str]]) -> Iterator[Finding]:
    for number, state in slots.items():
        if state == "staged":
            text = f"slot {number} is staged: packets with it are accepted, and no member signs with it yet"
            yield _SAYS("rotation", text, "once it is so on every member, make it active, and the former retiring")
        elif state == "retiring" and not used.get(number):
            text = f"slot {number} is retiring, and no member that is heard signs with it"
            yield _SAYS("rotation", text, "take it out of keys on every member, if all of them are present")
        elif state == "retiring":
            text = f"slot {number} is retiring, and {several(used[number])} still sign with it"
            yield _SAYS("rotation", text, "make the new slot active there before this one is taken out")


def _refused(look: Look) -> Iterator[Finding]:
    counters = look.counters
    if counters.get("rx_unknown_key"):
        text = f"{counters['rx_unknown_key']} packets had a key slot that this node does not have"
        yield _SAYS("unknown", text, "add the key as staged here, as on every member, before one signs with it")
    wrong = sum(counters.get(name, 0) for name in ("rx_bad_mac", "rx_bad_body", "rx_wrong_key"))
    if wrong:
        text = f"{wrong} packets were signed with another secret"
        remedy = "compare the secret on every member (sha256sum FILE); else a stranger tries the port"
        yield _SAYS("wrong", text, remedy)
