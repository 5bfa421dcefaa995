# SPDX-License-Identifier: MIT
"""A host without BCC and LLVM loads the data plane from a program container, and keeps what it has if that is bad."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import xdp_gossip
from tests.bpf.loader_world import COMMAND, ROOT, USER, World, run
from xdp_gossip.cli.dataplane import NOT_UP
from xdp_gossip.dataplane import headers
from xdp_gossip.dataplane.loader import container, stock

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: network namespaces and BPF"),
]
NATIVE = "XDP (native)"
#: The command without BCC. It fails if the compiler is in the process nevertheless.
_BARE = """
import sys
sys.modules["bcc"] = None
sys.path.insert(0, sys.argv.pop(1))
import xdp_gossip.cli as cli
code = cli.main()
with open("/proc/self/maps") as stream:
    mapped = [line for line in stream if "libbcc" in line or "libLLVM" in line or "libclang" in line]
sys.exit(f"the compiler is mapped: {mapped[0]}" if mapped else code)
"""


def bare(here: World, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """``xdp-gossip dataplane ...`` on a host without BCC."""
    if not (here.files / "agent.yml").exists():
        here.configure()
    agent = str(Path(xdp_gossip.__file__).parents[1])
    more = ("--config", str(here.files / "agent.yml"), "--directory", str(here.directory))
    user = ("--user", USER) if words[0] == "up" else ()
    return here.inside("/usr/bin/python3", "-c", _BARE, agent, "dataplane", *words, *more, *user, check=check)


def build(out: Path, **environment: str) -> dict[str, Any]:
    """``dataplane build``, and what it tells."""
    done = run(COMMAND, "dataplane", "build", str(out), "--json", environment=environment)
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["sha256"] == container.checksum(out.read_bytes()) and told["bytes"] == out.stat().st_size
    return told


def spoil(path: Path) -> None:
    """Change one byte."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def touch_sources(light: Path) -> None:
    """As a release with other programs."""
    with (light / "dataplane.c").open("a") as stream:
        stream.write("/* another release */\n")


def test_a_host_without_a_compiler_gets_native_xdp(here: World, light: Path) -> None:
    before = here.traces()
    told = build(light / stock.NAME)
    assert bare(here, "up").stdout == f"up: {NATIVE} on {here.interface}\n"
    status = here.status()
    assert (status["up"], status["mode"], status["container"]) == (True, NATIVE, told["sha256"])
    assert told["compiler"] in status["compiler"] and status["container_unfit"] == ""
    assert f"program container sha256:{told['sha256']}" in bare(here, "status").stdout
    assert bare(here, "up").stdout == f"already up: {NATIVE} on {here.interface}\n"
    # The sizes and constants are the host's own.
    here.configure(limits={"nodes": here.size + 1}, amount=7)
    assert bare(here, "up").stdout.startswith("up: ")
    nodes = json.loads(run("bpftool", "-j", "map", "show", "pinned", str(here.directory / "bpf/v5/nodes")).stdout)
    assert nodes["max_entries"] == here.size + 1
    bare(here, "down")
    here.expect_traces(before)


@pytest.mark.parametrize("protocol", ["TC"])
def test_other_modes_too(here: World, light: Path, protocol: str) -> None:
    build(light / stock.NAME)
    here.configure(protocol)
    assert bare(here, "up").stdout == f"up: {protocol} on {here.interface}\n"
    assert here.status()["up"]


def test_without_a_container_the_lack_of_the_compiler_is_told(here: World, light: Path) -> None:
    before = here.traces()
    done = bare(here, "up", check=False)
    assert done.returncode == NOT_UP and "BCC is missing" in done.stderr
    spoil_and_tell = light / stock.NAME
    build(spoil_and_tell)
    spoil(spoil_and_tell)
    done = bare(here, "up", check=False)
    assert done.returncode == NOT_UP
    assert f"{spoil_and_tell}: checksum: expected the SHA-256 in the header" in done.stderr
    bare(here, "down")
    here.expect_traces(before)


def test_a_changed_byte_is_refused_and_the_plane_in_use_stays(here: World, light: Path) -> None:
    build(light / stock.NAME)
    bare(here, "up")
    in_use = here.status()
    spoil(light / stock.NAME)
    # Nothing is to be replaced: what is in use came from the right container.
    assert bare(here, "up").stdout.startswith("already up: ")
    assert here.status()["programs"] == in_use["programs"]
    # Another release, with a spoilt container; then one with other maps.
    touch_sources(light)
    build(light / stock.NAME)
    spoil(light / stock.NAME)
    for _ in range(2):
        done = bare(here, "up", check=False)
        assert done.returncode == NOT_UP and "checksum: expected the SHA-256" in done.stderr
        now = here.status()
        assert now["up"] and (now["programs"], now["maps"]) == (in_use["programs"], in_use["maps"])
        here.configure(limits={"nodes": here.size + 1})
    here.configure()
    # The right container of that release is used at once.
    told = build(light / stock.NAME)
    assert bare(here, "up").stdout.startswith("upgraded: ")
    now = here.status()
    assert now["container"] == told["sha256"] and now["maps"] == in_use["maps"]
    assert not set(now["programs"].values()) & set(in_use["programs"].values())


def test_a_container_of_another_release_is_refused_by_name_and_bcc_compiles(here: World, light: Path) -> None:
    build(light / stock.NAME)
    touch_sources(light)
    done = bare(here, "up", check=False)
    assert done.returncode == NOT_UP and "the container belongs to another release" in done.stderr
    done = here.loader("up")
    assert done.stdout.startswith(f"up: {NATIVE}") and "belongs to another release" in done.stdout
    status = here.status()
    assert status["container"] == "" and "belongs to another release" in status["container_unfit"]
    assert "BCC" in status["compiler"]
    # A container that fits now: what was compiled here is not loaded again for it.
    build(light / stock.NAME)
    assert here.loader("up").stdout.startswith("already up: ")


def reject(path: Path, *programs: str) -> None:
    """Give the container, for each of these programs, code that no verifier takes: it returns without a value."""
    found = container.parse(path.read_bytes())
    spoilt = bytes((0x95, *bytes(7)))
    parts = [
        part._replace(
            programs=tuple(each._replace(code=spoilt) if each.name in programs else each for each in part.programs)
        )
        for part in found.parts
    ]
    path.write_bytes(container.pack(replace(found, parts=tuple(parts))))


@pytest.mark.parametrize(
    "programs", [("xg_xdp_ingress",), ("xg_xdp_egress",), ("xg_tc_egress",), ("xg_selftest_send",), ("xg_watch",)]
)
def test_what_the_kernel_rejects_is_compiled_where_there_is_a_compiler(
    here: World, light: Path, programs: tuple[str, ...]
) -> None:
    before = here.traces()
    path = light / stock.NAME
    build(path)
    reject(path, *programs)
    done = here.loader("up")
    told = f"program container not used: {path}: {programs[0]}: the kernel's verifier rejects it: R0 !read_ok"
    assert done.stdout.startswith(f"up: {NATIVE} on {here.interface}\n") and told in done.stdout
    status = here.status()
    assert (status["mode"], status["rejected"], status["container"]) == (NATIVE, {}, "")
    assert "BCC" in status["compiler"] and f"{programs[0]}: the kernel's verifier" in status["container_unfit"]
    assert here.loader("up").stdout.startswith(f"already up: {NATIVE}")
    here.loader("down")
    here.expect_traces(before)


def test_without_a_compiler_a_rejected_program_costs_its_modes_until_there_is_one(here: World, light: Path) -> None:
    here.plain_tags()
    path = light / stock.NAME
    build(path)
    reject(path, "xg_xdp_ingress")
    done = bare(here, "up")
    assert done.stdout.startswith(f"up: TC on {here.interface}\n") and "xg_xdp_ingress: the kernel's" in done.stdout
    former = here.status()
    assert former["container"] == container.checksum(path.read_bytes())
    # What was rejected once is not loaded again.
    assert bare(here, "up").stdout.startswith(f"already up: TC on {here.interface}\n")
    assert here.status()["programs"] == former["programs"]
    assert here.loader("up").stdout.startswith(f"up: {NATIVE} on {here.interface}\n")
    status = here.status()
    assert (status["rejected"], status["container"]) == ({}, "") and status["maps"] == former["maps"]


def test_a_compiler_that_fails_leaves_the_modes_of_the_container(here: World, light: Path) -> None:
    here.plain_tags()
    path = light / stock.NAME
    build(path)
    reject(path, "xg_xdp_ingress")
    # As if the container were of these sources, which do not compile.
    with (light / "dataplane.c").open("a") as stream:
        stream.write("#error of a broken release\n")
    found = container.parse(path.read_bytes())
    path.write_bytes(container.pack(replace(found, sources=headers.sources_digest())))
    done = here.loader("up")
    assert done.stdout.startswith(f"up: TC on {here.interface}\n")
    status = here.status()
    assert status["container"] and status["container_unfit"] == ""
    assert status["rejected"], status
    assert "instead of the container: " in str(status["reasons"]) and "of a broken release" in str(status["reasons"])


def test_another_container_of_the_same_release_is_loaded(here: World, light: Path) -> None:
    path = light / stock.NAME
    build(path)
    bare(here, "up")
    former = here.status()
    parsed = container.parse(path.read_bytes())
    other = container.Container(parsed.sources, parsed.layout, "BCC of another version", parsed.parts)
    path.write_bytes(container.pack(other))
    assert bare(here, "up").stdout.startswith("upgraded: ")
    assert here.status()["container"] == container.checksum(path.read_bytes()) != former["container"]
    path.unlink()
    assert bare(here, "up").stdout.startswith("already up: ")


def test_the_same_sources_give_the_same_bytes(light: Path, tmp_path: Path) -> None:
    first = build(tmp_path / "first.xgp")
    elsewhere = tmp_path / "else" / "where"
    shutil.copytree(light, elsewhere)
    done = build(tmp_path / "second.xgp", **{headers.DIRECTORY_VARIABLE: str(elsewhere)})
    assert (tmp_path / "first.xgp").read_bytes() == (tmp_path / "second.xgp").read_bytes()
    assert first["sha256"] == done["sha256"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_file_that_cannot_be_written_and_sources_that_do_not_compile_are_told(light: Path, tmp_path: Path) -> None:
    done = run(COMMAND, "dataplane", "build", str(tmp_path / "none" / "x.xgp"), check=False)
    assert done.returncode == 1 and "No such file or directory" in done.stderr
    (light / "selftest.c").write_text("int xg_selftest_send(struct xdp_md *ctx) { return nonsense; }")
    done = run(COMMAND, "dataplane", "build", str(tmp_path / "x.xgp"), check=False)
    assert done.returncode == 1 and "nonsense" in done.stderr and not (tmp_path / "x.xgp").exists()


@pytest.mark.slow
def test_the_real_programs(here: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Built twice, in different directories; loaded without a compiler, in each mode."""
    copy = tmp_path.with_name(tmp_path.name + "-bpf")
    shutil.copytree(ROOT / "bpf", copy)
    try:
        build(tmp_path / "first.xgp")
        monkeypatch.setenv(headers.DIRECTORY_VARIABLE, str(copy))
        build(copy / stock.NAME)
        assert (copy / stock.NAME).read_bytes() == (tmp_path / "first.xgp").read_bytes()
        here.plain_tags()
        for protocol, mode in (("auto", NATIVE), ("TC", "TC")):
            here.configure(protocol)
            assert bare(here, "up").stdout == f"up: {mode} on {here.interface}\n"
            status = here.status()
            assert status["up"] and status["rejected"] == {} and status["container"]
    finally:
        shutil.rmtree(copy)
