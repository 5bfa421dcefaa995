# SPDX-License-Identifier: MIT
"""Stands for the ``bcc`` package in a guest whose programs were compiled ahead, by its own distribution's compiler.

Emulation makes a compilation of 4 s one of a minute, for every host and every ``doctor``. What differs is the compiler
alone: the loader's own code makes the maps, asks the verifier and attaches. Guests of ``make kernels`` compile, too.
``compiled.json`` (dump.py) lies in the share.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

SHARE = Path("/run/share")
sys.path.append(str(SHARE))
load = importlib.import_module("load")

__version__ = "compiled ahead"
_PIN = "-DXG_PIN="


class _Function:
    def __init__(self, fd: int) -> None:
        self.fd = fd


class _Table:
    def __init__(self, fd: int) -> None:
        self._fd = fd

    def get_fd(self) -> int:
        """Descriptor of the map."""
        return self._fd


class BPF:
    """A source, as compiled; raises ``Exception`` as BCC does, with the details on stderr."""

    SCHED_CLS, XDP, RAW_TRACEPOINT = 3, 6, 17

    def __init__(self, src_file: str, cflags: Sequence[str]) -> None:
        dumped = json.loads((SHARE / "compiled.json").read_text())[Path(src_file).name]
        flags = [flag for flag in cflags if flag.startswith("-D") and not flag.startswith(_PIN)]
        if sorted(flags) != dumped["flags"]:
            raise Exception(f"{src_file}: expected flags {dumped['flags']}, for which it was compiled, got {flags}")
        directory = next((flag[len(_PIN) :].strip('"') for flag in cflags if flag.startswith(_PIN)), "")
        self._programs = dumped["programs"]
        self._maps: dict[int, int] = {}
        self._names: dict[str, int] = {}
        self._functions: dict[str, _Function] = {}
        for number, spec in dumped["maps"].items():
            name = spec["name"]
            made = load.shared(spec, f"{directory}/{name}") if directory and spec["pinned"] else load.make(spec)
            if made < 0:
                raise Exception(f"map {name}: {os.strerror(-made)}")
            self._maps[int(number)] = self._names[name] = made

    def load_func(self, name: str, kind: int, device: object = None, attach_type: int = 0) -> _Function:
        """Load a program."""
        if name not in self._functions:
            result, said = load.ask(name, kind, load.linked(self._programs[name][1], self._maps), attach_type)
            if result < 0:
                os.write(2, said.encode())
                raise Exception(f"Failed to load BPF program {name}: {os.strerror(-result)}")
            self._functions[name] = _Function(result)
        return self._functions[name]

    def __getitem__(self, name: str) -> _Table:
        return _Table(self._names[name])

    def __del__(self) -> None:
        for descriptor in (*self._maps.values(), *(each.fd for each in self._functions.values())):
            os.close(descriptor)
