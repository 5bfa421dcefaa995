# SPDX-License-Identifier: MIT
"""Checks whether the agent answers, and which problems the agent reports about itself."""

from __future__ import annotations

from collections.abc import Iterator

from .. import tables
from . import unseen
from .finding import Finding, Subject
from .look import Look

_SAYS = Subject(
    "agent",
    down="warning",
    silent="error",
    starting="warning",
    refused="error",
    other="note",
    untold="warning",
    stopped="warning",
    waiting="warning",
    catching_up="warning",
    internal_errors="error",
    stalls="warning",
)
_NO_STATUS = {
    "down": ("does not answer", "systemctl start xdp-gossip; journalctl -u xdp-gossip"),
    "silent": ("is there and does not answer", "journalctl -u xdp-gossip -n 50; then systemctl restart xdp-gossip"),
    "starting": ("is no member yet", "xdp-gossip status says what it waits for; journalctl -u xdp-gossip"),
    "refused": ("gives no status", "is that an agent? are token (--token-file) and certificate (--ca-file) its own?"),
}


def examine(look: Look) -> Iterator[Finding]:
    """Yield findings about the agent: whether its API answers, and its internal errors."""
    status = look.status
    if look.state == "hidden":
        yield unseen(look.why)
        return
    if status is None:
        text, remedy = _NO_STATUS[look.state]
        yield _SAYS(look.state, f"{text} ({look.why or look.endpoint})", remedy)
        return
    if status["state"] == "running":
        yield _SAYS.ok(f"{status['version']} runs as {tables.address(status['node'])}")
    else:
        yield _SAYS("stopped", f"its heartbeats are {status['state']}: others drop it", "xdp-gossip node start")
    if look.config is not None and not look.local:
        text = f"it is {tables.address(status['node'])}; {look.path} is of {look.config.node.address}"
        yield _SAYS("other", f"{text}: the two are not compared", "ask the agent of this host, or name its --config")
    for name, why in look.untold.items():
        yield _SAYS("untold", f"the agent does not report its {name}: {why}", "is it an older release? then restart it")
    if status.get("waiting"):
        remedy = "wait, if the address is assigned later; otherwise give it to an interface, or name another one"
        yield _SAYS("waiting", f"waiting for {status['waiting']}", remedy)
    if status.get("catching_up"):
        text = f"the agent has not caught up with the cluster since its start: {status['catching_up']}"
        yield _SAYS(
            "catching_up", text, "wait, if it makes progress; until then no files are rendered (wait_for_members)"
        )
    for found in status.get("internal_errors", []):
        text = f"{found['count']} internal errors in {found['task']} at {found['place']}; the last: {found['error']}"
        yield _SAYS("internal_errors", text, "report it with the lines of journalctl -u xdp-gossip")
    stalls = look.counters.get("own_stalls", 0)
    if stalls:
        text = f"it got no processor time {stalls} times in {status['uptime']:.0f} s, for longer than others wait"
        yield _SAYS("stalls", text, "is the host overloaded, or a guest that is suspended? top; vmstat 1")
