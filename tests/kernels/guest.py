# SPDX-License-Identifier: MIT
"""A stock kernel boots under QEMU's software emulation, runs one command in a distribution's root, and powers off.

The root is this machine's directory, read-only, over 9p; what the command reads and writes is a shared directory at
``/run/share``. There is no init system: the command is the guest's first process.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .distributions import Unavailable, release

#: What a guest needs beside what its kernel has built in: nothing there loads modules on demand.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "virtio_net", "virtio_rng", "veth", "sch_ingress", "cls_bpf")
#: The last line of a command that has come to its end.
ENDED = "XDP GOSSIP GUEST ENDED WITH"
_INIT = """#!/bin/sh
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for module in $($B cat /order); do
    case $module in
        *.xz) $B unxz -c "/modules/$module" > /tmp/module && $B insmod /tmp/module ;;
        *) $B insmod "/modules/$module" ;;
    esac
done
how=trans=virtio,version=9p2000.L,msize=262144
$B mount -t 9p -o $how,ro,cache=loose root /root
for here in /run /tmp; do $B mount -t tmpfs tmpfs /root$here; done
$B mkdir /root/run/share
$B mount -t 9p -o $how,rw share /root/run/share
for here in /proc /sys /dev; do $B mount --move $here /root$here; done
exec $B switch_root /root /bin/sh /run/share/first
"""
_FIRST = """#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
mkdir -p /run/netns /dev/shm
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
cd /run/share
sh ./command > output 2>&1
echo "{ended} $?"
sync
echo o > /proc/sysrq-trigger
sleep 60
"""


@dataclass(frozen=True)
class Guest:
    """One that was started. ``share`` is where its command writes."""

    share: Path
    process: subprocess.Popen[bytes]
    console: Path

    def wait(self, seconds: float) -> str:
        """What the command printed. Raises ``AssertionError`` when it failed, or did not end in time."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop()
            raise AssertionError(f"the guest did not end within {seconds:g} s: {self._said()}") from None
        said = self._said()
        assert f"{ENDED} 0" in said, said
        return self._output()

    def stop(self) -> None:
        """End it at once. Idempotent."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def written(self, name: str, seconds: float) -> str:
        """A file that the command writes into the share. Raises ``AssertionError`` when the guest ends before."""
        end = time.monotonic() + seconds
        path = self.share / name
        while not path.exists():
            assert self.process.poll() is None, f"the guest ended before it wrote {name}: {self._said()}"
            assert time.monotonic() < end, f"the guest did not write {name} within {seconds:g} s: {self._said()}"
            time.sleep(0.5)
        return path.read_text()

    def _output(self) -> str:
        path = self.share / "output"
        return path.read_text(errors="replace") if path.exists() else ""

    def _said(self) -> str:
        console = self.console.read_text(errors="replace") if self.console.exists() else ""
        return f"console: {console[-3000:]}\noutput: {self._output()[-6000:]}"


@contextlib.contextmanager
def booted(
    kernel: Path,
    root: Path,
    share: Path,
    command: str,
    *devices: str,
    memory: int = 1024,
    prefix: Sequence[str] = (),
    modules: Sequence[str] = (),
    boot: str = "",
) -> Iterator[Guest]:
    """A guest that runs ``command``, a shell script; ended and forgotten when the context is left.

    ``devices``: further words of QEMU's command line, which runs behind the words of ``prefix``; ``memory`` in MiB;
    ``modules``: of the kernel, beside those that every guest has; ``boot``: further words of the kernel's command line.
    Raises ``Unavailable``.
    """
    share.mkdir(parents=True, exist_ok=True)
    (share / "command").write_text(command)
    (share / "first").write_text(_FIRST.replace("{ended}", ENDED))
    initrd, console = share / "initrd", share / "console"
    initrd.write_bytes(_initrd(kernel, modules))
    # A guest measures the frequency of its TSC at boot, many times wrong on a busy machine. The ACPI timer has one.
    # Nor does it see the timer tick in time there, and panics at boot.
    clock = "clocksource=acpi_pm tsc=unstable no_timer_check"
    line = f"console=ttyS0 quiet {clock} panic=-1 mitigations=off nokaslr apparmor=0 nowatchdog net.ifnames=0 {boot}"
    words = [
        # A test process that is killed takes its guests along.
        *("setpriv", "--pdeathsig", "KILL"),
        *prefix,
        *("qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off"),
        *("-smp", "1", "-m", str(memory), "-display", "none", "-monitor", "none", "-no-reboot", "-nic", "none"),
        *("-kernel", str(kernel / "boot" / f"vmlinuz-{release(kernel)}"), "-initrd", str(initrd), "-append", line),
        *("-virtfs", f"local,path={root},mount_tag=root,security_model=none,readonly=on"),
        *("-virtfs", f"local,path={share},mount_tag=share,security_model=none"),
        *("-device", "virtio-rng-pci", "-serial", f"file:{console}", *devices),
    ]
    try:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError as error:
        raise Unavailable(f"qemu-system-x86_64: {error}") from None
    guest = Guest(share, process, console)
    try:
        yield guest
    finally:
        guest.stop()


def _initrd(kernel: Path, modules: Sequence[str]) -> bytes:
    """busybox, the modules in the order of their dependencies, and the script that mounts the root."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise Unavailable("busybox-static: not installed")
    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        for part in ("bin", "proc", "sys", "dev", "root", "tmp", "modules"):
            (made / part).mkdir()
        shutil.copy(busybox, made / "bin" / "busybox")
        (made / "bin" / "sh").symlink_to("busybox")
        order = []
        for path in _modules(kernel, (*MODULES, *modules)):
            shutil.copy(path, made / "modules" / path.name)
            order.append(path.name)
        (made / "order").write_text("\n".join(order))
        (made / "init").write_text(_INIT)
        (made / "init").chmod(0o755)
        pack = "find . | cpio --quiet -o -H newc | gzip -1"
        return subprocess.run(("sh", "-c", pack), cwd=made, check=True, capture_output=True, timeout=120).stdout


def _modules(kernel: Path, names: Sequence[str]) -> list[Path]:
    found: dict[Path, None] = {}
    for module in names:
        words = ("modprobe", "-D", "-d", str(kernel), "-S", release(kernel), module)
        told = subprocess.run(
            words, capture_output=True, text=True, timeout=60, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        )
        for line in told.stdout.splitlines():
            if line.startswith("insmod "):
                found[Path(line.split()[1])] = None
    return list(found)
