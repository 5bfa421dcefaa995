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
AGENT = HERE.parents[1] / "agent"
#: A boot and the verification of all programs took 36 to 42 s on two cores; a busy machine may need many times that.
BOOT_SECONDS = 1200.0
_COMPILE_SECONDS = 300.0
#: Compiler -> program -> what load.py tells of it.
Results = dict[str, dict[str, Any]]


def compiled(distribution: Distribution, bpf: Path = BPF) -> bytes:
    """The program container that ``dataplane build`` makes of ``bpf/`` by the distribution's BCC.

    Raises ``Unavailable``.
    """
    inside = root(distribution)
    with tempfile.TemporaryDirectory(dir=inside / "share") as name:
        share = Path(name)
        shutil.copytree(bpf, share / "bpf")
        shutil.copytree(AGENT, share / "agent", ignore=shutil.ignore_patterns("__pycache__", "build"))
        within = Path("/share") / share.name
        words = (str(within / "agent" / "bin" / "xdp-gossip"), "dataplane", "build", str(within / "out.xgp"))
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
        return (share / "out.xgp").read_bytes()


@contextlib.contextmanager
def verifying(
    distribution: Distribution, containers: Mapping[str, bytes], share: Path, boot: str = ""
) -> Iterator[Guest]:
    """The distribution's kernel, asked for all programs of all compilers (by name).

    ``boot``: words of its command line. What it says of its lockdown is in the file ``lockdown`` of the share.
    """
    share.mkdir(parents=True)
    shutil.copy(HERE / "load.py", share)
    shutil.copytree(AGENT, share / "product" / "agent", ignore=shutil.ignore_patterns("__pycache__", "build"))
    lines = ["set -e", "mountpoint -q /sys/kernel/security || mount -t securityfs securityfs /sys/kernel/security"]
    lines.append("cat /sys/kernel/security/lockdown >lockdown || echo none >lockdown")
    # BCC is in the root, and must not be used.
    lines.append("mount -t tmpfs none /usr/lib/python3/dist-packages/bcc")
    for number, content in enumerate(containers.values()):
        (share / f"{number}.xgp").write_bytes(content)
        lines.append(f"python3 load.py {number}.xgp {number}.out")
    with booted(kernel(distribution), root(BOOKWORM), share, "\n".join(lines) + "\n", boot=boot) as guest:
        yield guest


def results(guest: Guest, containers: Mapping[str, bytes]) -> Results:
    """What the guest's verifier said, when it has come to its end."""
    guest.wait(BOOT_SECONDS)
    return {name: json.loads((guest.share / f"{number}.out").read_text()) for number, name in enumerate(containers)}


def matrix(
    distributions: Sequence[Distribution],
    bpf: Path = BPF,
    running: bool = True,
    more: Mapping[str, bytes] | None = None,
) -> dict[str, Results]:
    """Kernel -> results; two guests at a time. ``running``: this machine's own kernel too. ``more``: further program
    containers, by name. Raises ``Unavailable``.
    """
    containers = {each.compiler: compiled(each, bpf) for each in distributions if each.compiler}
    containers.update(more or {})
    found: dict[str, Results] = {}
    with tempfile.TemporaryDirectory() as name:
        for at in range(0, len(distributions), 2):
            with contextlib.ExitStack() as stack:
                guests = {
                    each.kernel: stack.enter_context(verifying(each, containers, Path(name) / each.suite))
                    for each in distributions[at : at + 2]
                }
                for version, guest in guests.items():
                    found[version] = results(guest, containers)
    if running:
        found[os.uname().release] = {compiler: load.load(content) for compiler, content in containers.items()}
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
