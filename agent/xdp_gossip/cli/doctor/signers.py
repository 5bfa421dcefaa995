# SPDX-License-Identifier: MIT
"""Checks the signers of documents: whether all members accept the same signers, and whether documents were refused."""

from __future__ import annotations

from collections.abc import Iterator

from .finding import Finding, Subject
from .look import Look
from .members import named, several

_SAYS = Subject("signer", differ="warning", unsigned="warning", refused="warning")


def examine(look: Look) -> Iterator[Finding]:
    """Compare the signers of this node with those of the other members, then report refused documents."""
    if look.status is None:
        return
    own = next((node.get("signers", "") for node in look.nodes if node["local"]), "")
    present = [node for node in look.nodes if not node["local"] and node["state"] in ("alive", "suspect")]
    others = [named(node) for node in present if node["record_known"] and node.get("signers", "") != own]
    if others:
        text = f"{several(others)} accept other signers than this node"
        yield _SAYS("differ", text, "give the setting signers the same value on every host, and reload the agents")
    elif own:
        yield _SAYS.ok("every member accepts the same signers")
    unsigned = look.counters.get("documents_refused_unsigned")
    if unsigned:
        text = f"documents without the signature that they need were refused {unsigned} times"
        yield _SAYS("unsigned", text, "the log names each document and the member that sent it: sign it, or look there")
    refused = look.counters.get("documents_refused_signature")
    if refused:
        text = f"documents with a wrong signature were refused {refused} times"
        yield _SAYS("refused", text, "the log names each document and the member that sent it: look at that host")
