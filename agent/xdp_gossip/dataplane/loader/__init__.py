# SPDX-License-Identifier: MIT
"""Puts the programs of ``bpf/`` into the kernel and takes them out again: privileged, short-lived, never the agent.

``up`` compiles, attaches through pinned links, hands the maps to the agent's user and exits. What it has done stands
in ``state.json`` before it is done, so that the next ``up`` or ``down`` undoes what a killed one has left.

settings (what is wanted) -> runner (up, down) -> compile, attach, clsact, selftest, pins, state -> libbpf, netlink
"""
