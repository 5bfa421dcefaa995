# SPDX-License-Identifier: MIT
"""Loads the programs of ``bpf/`` into the kernel and removes them again. The loader is a privileged, short-lived
process.

``up`` compiles the programs, attaches them through pinned links, gives the maps to the agent's user and exits. The
loader records each step in ``state.json`` before it executes the step. If a loader is killed, the next ``up`` or
``down`` cleans up after it.

Modules: settings (the wanted state) -> runner (up, down) -> compile, attach, clsact, selftest, pins, state -> libbpf,
interfaces
"""
