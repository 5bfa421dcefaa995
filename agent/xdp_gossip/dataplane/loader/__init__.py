# SPDX-License-Identifier: MIT
"""Loads the programs of ``bpf/`` into the kernel and removes them again. The loader is a privileged, short-lived
process.

``up`` loads the programs, attaches them through pinned links, gives the maps to the agent's user and exits. The
programs come from a program container, so that the host needs no compiler; a host without one compiles them with BCC.
The loader records each step in ``state.json`` before it executes the step. If a loader is killed, the next ``up`` or
``down`` cleans up after it.

Modules: settings (the wanted state) -> runner (up, down) -> supply -> stock -> container, compile; supply -> loading;
runner -> attach, clsact, selftest, pins, state -> libbpf, interfaces
"""
