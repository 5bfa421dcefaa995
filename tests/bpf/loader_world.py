# SPDX-License-Identifier: MIT
"""Two network namespaces joined by a veth, a loader that runs in one of them, and a look at all that it may leave."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from xdp_gossip.dataplane import headers
from xdp_gossip.dataplane.loader.compile import include_directories

ROOT = Path(__file__).resolve().parents[2]
COMMAND = str(ROOT / "agent" / "bin" / "xdp-gossip")
USER = "nobody"
IPV4, IPV6 = "198.18.61.1", "fd00:198:18:61::1"
#: Names of the loader's maps; those of its programs begin with xg_.
MAPS = {
    "config",
    "refusals",
    "keys",
    "nodes",
    "directs",
    "askers",
    "acks",
    "allow",
    "targets",
    "nexthops",
    "events",
    "counters",
    "relay",
    "relay_wide",
}


#: Programs that touch the maps, count the self-test's frames and let everything else pass; the real ones take seconds
#: to compile and to verify.
_LIGHT = """
#include <linux/pkt_cls.h>

#include "parse.h"
#include "selftest.h"

static __always_inline bool touch(void *data, void *end, __u32 counter)
{
	struct xg_node_key key = {};

	if (xg_local() && xg_find_node(&key))
		xg_count(0);
	if (!xg_is_selftest(data, end))
		return false;
	xg_count(counter);
	return true;
}

#define DATA(ctx) (void *)(long)ctx->data, (void *)(long)ctx->data_end

int xg_xdp_ingress(struct xdp_md *ctx)
{
	if (touch(DATA(ctx), XG_COUNT_selftest_ingress))
		return XDP_DROP;
	return ctx->rx_queue_index > 9999 ? xg_broadcast(true) : XDP_PASS;
}

int xg_xdp_egress(struct xdp_md *ctx)
{
	return touch(DATA(ctx), XG_COUNT_copy) ? XDP_DROP : XDP_PASS;
}

int xg_tc_ingress(struct __sk_buff *skb)
{
	return touch(DATA(skb), XG_COUNT_selftest_ingress) ? TC_ACT_SHOT : -1;
}

int xg_tc_egress(struct __sk_buff *skb)
{
	return touch(DATA(skb), XG_COUNT_selftest_egress) ? TC_ACT_SHOT : -1;
}

int xg_watch(struct bpf_raw_tracepoint_args *ctx)
{
	if (ctx->args[2] > 9999)
		xg_count(0);
	return 0;
}
"""


@contextlib.contextmanager
def light_sources(directory: Path) -> Iterator[Path]:
    """A copy of ``bpf/`` with the real maps and programs that compile fast; a test may change it."""
    shutil.copytree(ROOT / "bpf", directory)
    main = directory / "dataplane.c"
    tables, found, _programs = main.read_text().partition('#include "tc.h"')
    assert found, "dataplane.c: expected its tables before tc.h"
    main.write_text(tables + _LIGHT)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def run(*words: str, check: bool = True, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A command, its output as text; never longer than a minute."""
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(environment or {})},
    )
    assert not check or done.returncode == 0, f"{' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done


_WORLDS = itertools.count()
#: Ids of what was once seen to be another data plane's; the kernel does not use an id again.
_FOREIGN_MAPS: set[int] = set()
_FOREIGN_PROGRAMS: set[int] = set()


@dataclass
class World:
    """``interface`` in ``namespace`` is joined to ``peer`` in ``beyond``; ``files`` has configuration and state."""

    namespace: str
    beyond: str
    interface: str
    peer: str
    files: Path
    #: Size of its node map, which no other test has: the kernel may take long to free what an earlier one has left.
    size: int = field(default_factory=lambda: 10_000 + (101 * os.getpid() + next(_WORLDS)) % 80_000)
    #: Sizes of node maps that this world's loader made.
    sizes: set[int] = field(default_factory=set)

    @property
    def directory(self) -> Path:
        """Where the loader puts its state and pins."""
        return self.files / "plane"

    def inside(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command in the loader's network namespace. Not ``ip netns exec``: that unshares the mounts too."""
        return run("nsenter", f"--net=/run/netns/{self.namespace}", *words, **options)

    def outside(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command in the peer's network namespace."""
        return run("nsenter", f"--net=/run/netns/{self.beyond}", *words)

    def plain_tags(self) -> None:
        """Have VLAN tags stay in the frames, as generic XDP needs it."""
        self.inside("ethtool", "-K", self.interface, "rxvlan", "off", "txvlan", "off")
        self.outside("ethtool", "-K", self.peer, "rxvlan", "off", "txvlan", "off")

    def configure(self, protocol: str = "auto", addr: str = IPV4, **more: Any) -> str:
        """Write the configuration; returns its path."""
        path = self.files / "agent.yml"
        node = {"addr": addr, "port": 7946}
        limits = more.setdefault("limits", {"nodes": self.size})
        self.sizes.add(limits["nodes"])
        path.write_text(json.dumps({"node": node, "allow_insecure": True, "protocol": protocol, **more}))
        return str(path)

    def loader(self, action: str, *words: str, check: bool = True, **environment: str) -> Any:
        """``xdp-gossip dataplane ACTION`` with the configuration as it is."""
        if not (self.files / "agent.yml").exists():
            self.configure()
        words = ("--config", str(self.files / "agent.yml"), "--directory", str(self.directory), *words)
        if action == "up" and "--user" not in words:
            words = (*words, "--user", USER)
        return self.inside(COMMAND, "dataplane", action, *words, check=check, environment=environment)

    def status(self) -> dict[str, Any]:
        """What ``status --json`` prints."""
        report: dict[str, Any] = json.loads(self.loader("status", "--json", check=False).stdout)
        return report

    def traces(self) -> dict[str, object]:
        """All that a loader could leave, in the kernel and in the file system."""
        programs, kept = self._objects()
        return {
            "programs": programs,
            "maps": kept,
            "links": sorted(each["id"] for each in self._bpftool("link") if each.get("devname") == self.interface),
            "net": self.inside("bpftool", "-j", "net", "show").stdout,
            "queueing": self.inside("tc", "qdisc", "show").stdout,
            "interface": self.inside("ip", "-d", "link", "show", self.interface).stdout,
            "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.files) in line],
            "files": sorted(str(path) for path in self.files.rglob("*") if path.name != "agent.yml"),
        }

    def expect_traces(self, before: dict[str, object]) -> None:
        """Nothing is there that was not there before; the kernel takes a moment to free what nobody holds."""
        end = time.monotonic() + 20
        while (now := self._new(before)) and time.monotonic() < end:
            time.sleep(0.1)
        assert not now, json.dumps(now, indent=1)

    def _objects(self) -> tuple[list[int], list[int]]:
        """Ids of the programs and maps that look like the loader's, without those of other data planes.

        Another one, of a test that runs at the same time, shows in the size of its node map: what hangs together
        with that map is not ours, nor is it when that map goes before it does. What hangs together with none, the
        self-test's programs and maps, could only be kept by a pin, and shows as a mount.
        """
        found_programs = [each for each in self._bpftool("prog") if each.get("name", "").startswith("xg_")]
        programs = [each for each in found_programs if not each["name"].startswith("xg_selftest")]
        found = {each["id"]: each for each in self._bpftool("map") if each.get("name") in MAPS}
        others = {number for number, each in found.items() if self._is_foreign(each)}
        for _ in range(3):
            others |= {n for each in programs for n in each.get("map_ids", ()) if others & set(each["map_ids"])}
        _FOREIGN_MAPS.update(others)
        _FOREIGN_PROGRAMS.update(each["id"] for each in programs if _FOREIGN_MAPS & set(each.get("map_ids", ())))
        others |= _FOREIGN_MAPS
        ours = [each["id"] for each in programs if each["id"] not in _FOREIGN_PROGRAMS]
        used = {number for each in programs if each["id"] in ours for number in each.get("map_ids", ())}
        sized = {number for number, each in found.items() if each["name"] == "nodes" and not self._is_foreign(each)}
        return ours, sorted(used & found.keys() | sized)

    def _is_foreign(self, each: dict[str, Any]) -> bool:
        return each["name"] == "nodes" and each["max_entries"] not in self.sizes

    def _bpftool(self, kind: str) -> list[dict[str, Any]]:
        # It fails when something vanishes while it lists.
        for _ in range(20):
            shown = self.inside("bpftool", "-j", kind, "show", check=False).stdout
            with contextlib.suppress(ValueError):
                found: list[dict[str, Any]] = json.loads(shown)
                return found
        raise AssertionError(f"bpftool {kind} show: expected a list twenty times, got {shown}")

    def _new(self, before: dict[str, object]) -> dict[str, object]:
        found = {}
        for name, value in self.traces().items():
            old = before[name]
            if isinstance(value, list) and isinstance(old, list):
                value, old = sorted(set(value) - set(old)), []
            if value != old:
                found[name] = value
        return found


@contextlib.contextmanager
def world(files: Path, gro: bool = True) -> Iterator[World]:
    """A world of its own, taken away in the end, with whatever is still mounted or pinned in it."""
    number = os.getpid()
    made = World(f"xgl-a{number}", f"xgl-b{number}", f"xgla{number % 10**7}", f"xglb{number % 10**7}", files)
    try:
        for name in (made.namespace, made.beyond):
            run("ip", "netns", "add", name)
        link = ("ip", "link", "add", made.interface, "netns", made.namespace, "type", "veth", "peer", "name", made.peer)
        run(*link, "netns", made.beyond)
        made.inside("ip", "address", "add", f"{IPV4}/24", "dev", made.interface)
        made.inside("ip", "address", "add", f"{IPV6}/64", "dev", made.interface, "nodad")
        made.inside("ip", "link", "set", made.interface, "up")
        made.outside("ip", "link", "set", made.peer, "up")
        if gro:
            made.outside("ethtool", "-K", made.peer, "gro", "on")
        yield made
    finally:
        run("umount", "--lazy", str(made.directory / "bpf"), check=False)
        for name in (made.namespace, made.beyond):
            run("ip", "netns", "delete", name, check=False)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    """A world whose veth can do native XDP."""
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The loader takes the light programs; their directory, not below the one whose files are compared."""
    with light_sources(tmp_path.with_name(tmp_path.name + "-bpf")) as copy:
        monkeypatch.setenv(headers.DIRECTORY_VARIABLE, str(copy))
        yield copy


@pytest.fixture
def incumbent(tmp_path: Path) -> Iterator[Path]:
    """A pinned XDP program of somebody else's, and beside it two for TC, ``neighbour`` and ``ends_chain``."""
    mounted = tmp_path.with_name(tmp_path.name + "-other")
    mounted.mkdir()
    run("mount", "-t", "bpf", "bpf", str(mounted))
    code = f"""
from bcc import BPF, lib
text = "int incumbent(struct xdp_md *c) {{ return 2; }} int neighbour(struct __sk_buff *s) {{ return -1; }}"
text += "int ends_chain(struct __sk_buff *s) {{ return 0; }}"
program = BPF(text=text, cflags={bcc_flags()!r})
assert lib.bpf_obj_pin(program.load_func("incumbent", BPF.XDP).fd, b"{mounted}/incumbent") == 0
assert lib.bpf_obj_pin(program.load_func("neighbour", BPF.SCHED_CLS).fd, b"{mounted}/neighbour") == 0
assert lib.bpf_obj_pin(program.load_func("ends_chain", BPF.SCHED_CLS).fd, b"{mounted}/ends_chain") == 0
"""
    try:
        shim = str(headers.directory() / "kshim")
        run("/usr/bin/python3", "-c", code, environment={"BCC_KERNEL_SOURCE": shim})
        yield mounted / "incumbent"
    finally:
        run("umount", str(mounted))
        mounted.rmdir()


def bcc_flags() -> list[str]:
    """What BCC needs to compile without the kernel's headers, beside ``BCC_KERNEL_SOURCE``."""
    return [f"-I{path}" for path in (headers.directory() / "kshim" / "include", *include_directories())]
