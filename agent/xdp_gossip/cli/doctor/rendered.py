# SPDX-License-Identifier: MIT
"""Checks whether the rendered files are up to date with the documents that they use."""

from __future__ import annotations

from collections.abc import Iterator

from .finding import Finding, Subject
from .look import Look

_SAYS = Subject("rendered", failed="error", drifted="warning", pending="note")


def examine(look: Look) -> Iterator[Finding]:
    """Yield a finding for each rendered file that could not be written or is not up to date with its documents."""
    for template in look.rendered:
        text = f"{template['name']} ({template['path']}): {template['error'] or template.get('drift')}"
        if template.get("drift"):
            remedy = "change the template or its documents instead; systemctl reload xdp-gossip puts the file right"
            yield _SAYS("drifted", text, remedy)
        elif template["state"] == "failed":
            remedy = "xdp-gossip rendered; journalctl -u xdp-gossip-files; then systemctl reload xdp-gossip"
            yield _SAYS("failed", text, remedy)
        elif template["state"] != "applied":
            remedy = "wait; if it stays pending: xdp-gossip rendered"
            yield _SAYS("pending", f"{text} (since {template['since']})", remedy)
    if look.rendered and all(template["state"] == "applied" for template in look.rendered):
        yield _SAYS.ok(f"{len(look.rendered)} in place")
