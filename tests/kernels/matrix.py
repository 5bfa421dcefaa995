# SPDX-License-Identifier: MIT
"""Every program, from every compiler, under every kernel's verifier."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import load
from .distributions import BOOKWORM, Distribution, Unavailable, kernel, root
from .guest import Guest, booted

HERE = Path(__file__).resolve().parent
BPF = HERE.parents[1] / "bpf"
#: A boot and the verification of all programs took 36 to 42 s on two cores; a busy machine may need many times that.
BOOT_SECONDS = 1200.0
_COMPILE_SECONDS = 300.0
#: Compiler -> program -> what load.py tells of it.
Results = dict[str, dict[str, Any]]


def compiled(distribution: Distribution, bpf: Path = BPF, flags: Sequence[str] = ()) -> dict[str, Any]:
    """What the distribution's BCC makes of ``bpf/`` (see dump.py). Raises ``Unavailable``."""
    inside = root(distribution)
    with tempfile.TemporaryDirectory(dir=inside / "share") as name:
        share = Path(name)
        shutil.copytree(bpf, share / "bpf")
        shutil.copy(HERE / "dump.py", share)
        within = Path("/share") / share.name
        words = ("/usr/bin/python3", str(within / "dump.py"), str(within / "bpf"), str(within / "out.json"), *flags)
        # A namespace of its own, so that the mounts end with the command, whatever becomes of it.
        script = f'mount -t proc proc "{inside}/proc" && exec chroot "{inside}" "$@"'
        done = subprocess.run(
            ("unshare", "--mount", "--fork", "sh", "-c", script, "sh", *words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMPILE_SECONDS,
        )
        if done.returncode:
            raise AssertionError(f"{distribution.compiler}: {bpf} does not compile: {done.stderr[-3000:]}")
        found: dict[str, Any] = json.loads((share / "out.json").read_text())
        return found


@contextlib.contextmanager
def verifying(distribution: Distribution, dumps: Mapping[str, Any], share: Path, boot: str = "") -> Iterator[Guest]:
    """The distribution's kernel, asked for all programs of all compilers (by name).

    ``boot``: words of its command line. What it says of its lockdown is in the file ``lockdown`` of the share.
    """
    share.mkdir(parents=True)
    shutil.copy(HERE / "load.py", share)
    lines = ["set -e", "mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security"]
    lines.append("cat /sys/kernel/security/lockdown >lockdown || echo none >lockdown")
    for number, dumped in enumerate(dumps.values()):
        (share / f"{number}.json").write_text(json.dumps(dumped))
        lines.append(f"python3 load.py {number}.json {number}.out")
    with booted(kernel(distribution), root(BOOKWORM), share, "\n".join(lines) + "\n", boot=boot) as guest:
        yield guest


def results(guest: Guest, dumps: Mapping[str, Any]) -> Results:
    """What the guest's verifier said, when it has come to its end."""
    guest.wait(BOOT_SECONDS)
    return {name: json.loads((guest.share / f"{number}.out").read_text()) for number, name in enumerate(dumps)}


def matrix(distributions: Sequence[Distribution], bpf: Path = BPF, running: bool = True) -> dict[str, Results]:
    """Kernel -> results; two guests at a time. ``running``: this machine's own kernel too. Raises ``Unavailable``."""
    dumps = {each.compiler: compiled(each, bpf) for each in distributions if each.compiler}
    found: dict[str, Results] = {}
    with tempfile.TemporaryDirectory() as name:
        for at in range(0, len(distributions), 2):
            with contextlib.ExitStack() as stack:
                guests = {
                    each.kernel: stack.enter_context(verifying(each, dumps, Path(name) / each.suite))
                    for each in distributions[at : at + 2]
                }
                for version, guest in guests.items():
                    found[version] = results(guest, dumps)
    if running:
        found[os.uname().release] = {compiler: load.load(dumped) for compiler, dumped in dumps.items()}
    return found


def table(found: Mapping[str, Results]) -> str:
    """One line a program, compiler and kernel."""
    lines = []
    for version, by_compiler in found.items():
        for compiler, programs in by_compiler.items():
            for name, told in programs.items():
                if told["accepted"]:
                    counts = "{instructions:>6} instructions {verified:>7} verified {stack:>4} stack".format(**told)
                    lines.append(f"{version:18} {compiler:18} {name:18} ACCEPTED {counts}")
                else:
                    lines.append(f"{version:18} {compiler:18} {name:18} REJECTED {told['error']}")
                    lines += [f"    {line}" for line in told["says"]]
    return "\n".join(lines)


__all__ = ["BPF", "Results", "Unavailable", "compiled", "matrix", "table"]
