# SPDX-License-Identifier: MIT
"""``load.py CONTAINER OUT``: ask this kernel's verifier for every program of a container. Needs Python alone, no BCC.

Runs in a guest, with the product in ``product`` beside this file, or in the tests' own process. Maps are created, and
maps and constants are put into the programs, by the product's own code. Every program is tried on its own. OUT is JSON:
program -> accepted, instructions, verified (instructions that the verifier walked), stack (bytes), helpers (ids), says
(the end of the verifier's log).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import resource
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent / "product" / "agent"))

from xdp_gossip.dataplane import libbpf
from xdp_gossip.dataplane.loader import container, loading
from xdp_gossip.dataplane.loader.errors import LoaderError
from xdp_gossip.dataplane.loader.programs import KINDS

_LOG_BYTES = 1 << 24
_LAST_LINES = 12
#: What the loader puts in, by the defaults of ``limits.nodes`` and ``amount``.
_CONSTANTS, _SIZES = {"amount": 4, "wide": 12}, {"nodes": 20000}


def ask(program: container.Program, code: bytes) -> tuple[str, str]:
    """The error of the kernel, "" if it accepts a program, and what the verifier said."""
    log = ctypes.create_string_buffer(_LOG_BYTES)
    trouble = ""
    for level in (libbpf.LOG_TOTALS, libbpf.LOG_TEXT):
        try:
            os.close(
                libbpf.program_load(program.name, KINDS[program.kind][0], code, KINDS[program.kind][1], log, level)
            )
            return "", log.value.decode(errors="replace")
        except OSError as error:
            trouble = error.strerror or str(error.errno)
    return trouble, log.value.decode(errors="replace")


def _load(program: container.Program, maps: list[int]) -> dict[str, Any]:
    trouble, said = ask(program, container.linked(program.code, maps, _CONSTANTS))
    verified, stack = re.search(r"processed (\d+) insns", said), re.search(r"stack depth ([\d+]+)", said)
    return {
        "accepted": not trouble,
        "error": trouble,
        "instructions": len(program.code) // 8,
        "verified": int(verified[1]) if verified else 0,
        "stack": sum(map(int, stack[1].split("+"))) if stack else 0,
        "helpers": sorted(container.helpers(program.code)),
        "says": said.strip().splitlines()[-_LAST_LINES:] if trouble else [],
    }


def load(content: bytes) -> dict[str, Any]:
    """Program -> what became of it. Raises ``ContainerError``."""
    # Before Linux 5.11 maps count as locked memory. Later kernels do without, and some of them forbid it.
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    found: dict[str, Any] = {}
    parsed = container.parse(content)
    for part in parsed.parts:
        programs = loading.Programs(part, parsed.compiler, _CONSTANTS, _SIZES)
        maps = []
        for spec in part.maps:
            try:
                maps.append(programs.map(spec.name))
            except LoaderError as error:
                found[f"map {spec.name}"] = {"accepted": False, "error": error.reason, "says": []}
                maps.append(-1)
        for program in part.programs:
            found[program.name] = _load(program, maps)
        programs.close()
    assert "bcc" not in sys.modules, "loading needs no compiler"
    return found


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(load(Path(sys.argv[1]).read_bytes())))
