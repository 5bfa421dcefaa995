# SPDX-License-Identifier: MIT
"""Checks whether the configuration file is valid, and whether the running agent uses the settings in the file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from . import unseen
from .finding import Finding, Subject
from .look import Look

_SAYS = Subject(
    "config",
    invalid="error",
    refused="error",
    restart="warning",
    reload="warning",
    another="warning",
    insecure="note",
)
#: Problems of the configuration file that another module of ``doctor`` reports with a better remedy.
_ELSEWHERE = re.compile(r": (api\.tls\.[a-z]+: expected|[\w.\[\]]+: expected a file that others cannot use)")


def examine(look: Look) -> Iterator[Finding]:
    """Report the problems of the configuration file, then the differences between the file and the running agent."""
    remedy = "correct the file, then xdp-gossip check-config"
    for problem in dict.fromkeys(look.problems):
        if os.geteuid() != 0 and "Permission denied" in problem:
            yield unseen(problem)
        elif not _ELSEWHERE.search(problem):
            yield _SAYS("invalid", problem, remedy)
    if not look.problems:
        yield _SAYS.ok(f"{look.path} is sound")
    if look.config is not None and look.config.allow_insecure and not look.config.keys and not look.config.secret_key:
        text = "allow_insecure: packets are neither authenticated nor encrypted; whoever reaches the port is a member"
        yield _SAYS("insecure", text, "set secret_key_file on every member")
    if look.loaded is not None and look.local:
        yield from _loaded(look)


def _loaded(look: Look) -> Iterator[Finding]:
    loaded = look.loaded or {}
    if not _same(loaded["file"], look.path):
        text = f"the agent runs with {loaded['file']}, doctor looked at {look.path}"
        yield _SAYS("another", text, f"xdp-gossip doctor --config {loaded['file']}")
    for problem in loaded["problems"]:
        if problem not in look.problems:
            remedy = "let the agent's user read it: chown xdp-gossip:root FILE; chmod 0440 FILE"
            yield _SAYS("refused", f"the agent could not read it: {problem}", remedy)
    if loaded["restart"]:
        text = f"the agent runs with other settings than {loaded['file']} has: {', '.join(loaded['restart'])}"
        yield _SAYS("restart", text, "systemctl restart xdp-gossip")
    if loaded["reload"]:
        text = f"the agent has not applied these settings of {loaded['file']} yet: {', '.join(loaded['reload'])}"
        yield _SAYS("reload", text, "systemctl reload xdp-gossip")


def _same(one: str, other: str) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.abspath(one) == os.path.abspath(other)
