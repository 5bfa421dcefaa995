# SPDX-License-Identifier: MIT
"""Checks the keys: whether a rotation is in progress, and whether members have different keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ...config.agent import passphrases
from .finding import Finding, Subject
from .look import Look
from .members import named, several

_SAYS = Subject(
    "key",
    passphrase="note",
    rotation="note",
    others="warning",
    lacks="warning",
    missed="error",
    unknown="warning",
    wrong="warning",
)


def examine(look: Look) -> Iterator[Finding]:
    """Check which key this node signs with, which keys it accepts, and which keys the other members have."""
    if look.config is not None:
        for place in passphrases(look.config):
            text = (
                f"{place} has a passphrase; each guess takes an attacker with a recorded packet a fraction of a second"
            )
            yield _SAYS("passphrase", text, "rotate to a key that xdp-gossip keygen makes, which cannot be guessed")
    if look.status is None:
        return
    own = {key["fingerprint"]: key["state"] for key in look.keys}
    active = next((fingerprint for fingerprint, state in own.items() if state == "active"), None)
    others = [node for node in look.nodes if not node["local"] and node["state"] in ("alive", "suspect")]
    told = [node for node in others if node.get("keys")]
    if active is not None:
        yield _SAYS.ok(f"key {active} signs, {', '.join(own)} accepted")
    yield from _rotation(own, told)
    yield from _lacking(own, told)
    if active is not None:
        yield from _signing(own, active, told)
    yield from _refused(look)


def _state(node: dict[str, Any], fingerprint: str) -> str | None:
    """The state of a key at ``node``; None if the node lacks the key."""
    return next((key["state"] for key in node["keys"] if key["fingerprint"] == fingerprint), None)


def _active(node: dict[str, Any]) -> str:
    return next((key["fingerprint"] for key in node["keys"] if key["state"] == "active"), "none")


def _rotation(own: dict[str, str], told: list[dict[str, Any]]) -> Iterator[Finding]:
    for fingerprint, state in own.items():
        signing = [named(node) for node in told if _state(node, fingerprint) == "active"]
        if state == "staged" and not signing:
            text = f"key {fingerprint} is staged: packets signed with it are accepted, and no member signs with it yet"
            yield _SAYS("rotation", text, "once every member has it, make it active, and the former key retiring")
        elif state == "staged":
            text = f"key {fingerprint} is staged here, and {several(signing)} sign with it"
            yield _SAYS("rotation", text, "make it active on every member, and the former key retiring")
        elif state == "retiring" and not signing:
            text = f"key {fingerprint} is retiring, and no member signs with it"
            yield _SAYS("rotation", text, "remove it from keys on every member, if all of them are present")
        elif state == "retiring":
            text = f"key {fingerprint} is retiring, and {several(signing)} still sign with it"
            yield _SAYS("rotation", text, "make the new key active there before this one is removed")


def _lacking(own: dict[str, str], told: list[dict[str, Any]]) -> Iterator[Finding]:
    for fingerprint, state in own.items():
        lacking = [named(node) for node in told if _state(node, fingerprint) is None]
        if lacking and state != "retiring":
            text = f"key {fingerprint} ({state} here) is missing on {several(lacking)}"
            yield _SAYS("lacks", text, "add the key there as staged, before any member signs with it")


def _signing(own: dict[str, str], active: str, told: list[dict[str, Any]]) -> Iterator[Finding]:
    used: dict[str, list[str]] = {}
    for node in told:
        used.setdefault(_active(node), []).append(named(node))
    for fingerprint, names in sorted(used.items()):
        if fingerprint != active:
            state = own.get(fingerprint, "unknown")
            text = f"key {active} signs here, {several(names)} sign with key {fingerprint} ({state} here)"
            yield _SAYS("others", text, "finish the rotation: make the same key active on every member")


def _refused(look: Look) -> Iterator[Finding]:
    counters, status = look.counters, look.status or {}
    dropped = status.get("dataplane", {}).get("counters", {}).get("drop_unknown_key", 0)
    unknown = counters.get("rx_unknown_key", 0) + dropped
    if status.get("missed_rotation"):
        text = f"this node may have missed a rotation: {unknown} packets came, none signed with a key that it has"
        yield _SAYS("missed", text, "deploy to this host again, or give it the keys of the other members and reload")
    elif unknown:
        text = f"{unknown} packets were signed with a key that this node does not have"
        if status.get("unknown_key_nodes"):
            text += f", in the last minutes by {status['unknown_key_nodes']} known nodes"
        yield _SAYS("unknown", text, "add the key as staged here, as on every member, before one signs with it")
    wrong = sum(counters.get(name, 0) for name in ("rx_bad_mac", "rx_bad_body", "rx_wrong_key"))
    if wrong:
        text = f"{wrong} packets were signed with another secret"
        remedy = "compare the keys of every member (xdp-gossip keys); else a stranger tries the port"
        yield _SAYS("wrong", text, remedy)
