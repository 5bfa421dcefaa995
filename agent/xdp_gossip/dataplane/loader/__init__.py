# SPDX-License-Identifier: MIT
"""Loads the programs of ``bpf/`` into the kernel and removes them again: privileged, short-lived, never the agent.

``up`` compiles, attaches through pinned links, hands the maps to the agent's user and exits. It writes each step to
``state.json`` before it takes it. If a loader is killed, the next ``up`` or ``down`` cleans up after it.

settings (what is wanted) -> runner (up, down) -> compile, attach, clsact, selftest, pins, state -> libbpf, interfaces
"""
