# SPDX-License-Identifier: MIT
"""The release archive: same tree, same bytes; complete; and it runs from where it is unpacked."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from containing import made

from xdp_gossip.dataplane.loader import container
from xdp_gossip.wire.native import WIRE_VERSION

ROOT = Path(__file__).resolve().parents[2]


def builder() -> Any:
    """The module agent/build_release.py."""
    return module_of(ROOT / "agent" / "build_release.py")


def module_of(path: Path) -> Any:
    """A module that no package of the tests contains."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tree(root: Path) -> None:
    """A small checkout."""
    package = root / "agent" / "xdp_gossip"
    (package / "core").mkdir(parents=True)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").write_bytes(b"x")
    (package / "__init__.py").write_text('__version__ = "9.8.7"\n')
    (package / "core" / "a.py").write_text("A = 1\n")
    (package / "wire").mkdir()
    (package / "wire" / "native.py").write_text("MAGIC = 1\nWIRE_VERSION = 7\n")
    (root / "agent" / "bin").mkdir()
    (root / "agent" / "bin" / "xdp-gossip").write_text("#!/bin/sh\n")
    (root / "agent" / "bin" / "xdp-gossip").chmod(0o755)
    (root / "bpf").mkdir()
    (root / "bpf" / "wire.h").write_text("/* */\n")


def test_same_tree_same_bytes(tmp_path: Path) -> None:
    build = builder().build
    results = []
    for name, umask in (("one", 0o022), ("two", 0o077)):
        before = os.umask(umask)
        try:
            tree(tmp_path / name)
        finally:
            os.umask(before)
        for path in (tmp_path / name).rglob("*"):
            os.utime(path, (1, 1) if name == "one" else None)
        results.append(build(tmp_path / name, tmp_path / f"{name}-out"))
    first, second = (Path(result["path"]).read_bytes() for result in results)
    assert first == second
    assert results[0]["release"] == f"9.8.7-{hashlib.sha256(first).hexdigest()[:12]}"
    (tmp_path / "two" / "bpf" / "wire.h").write_text("/* other */\n")
    assert build(tmp_path / "two", tmp_path / "two-out")["sha256"] != results[0]["sha256"]


def test_what_is_in_it(tmp_path: Path) -> None:
    tree(tmp_path)
    result = builder().build(tmp_path, tmp_path / "out")
    with tarfile.open(result["path"]) as tar:
        members = {member.name: member for member in tar.getmembers()}
        assert tar.extractfile("VERSION").read() == b"9.8.7\n"  # type: ignore[union-attr]
        assert tar.extractfile("WIRE").read() == b"7\n"  # type: ignore[union-attr]
    assert [name for name, member in members.items() if member.isfile()] == [
        "VERSION",
        "WIRE",
        "agent/xdp_gossip/__init__.py",
        "agent/xdp_gossip/core/a.py",
        "agent/xdp_gossip/wire/native.py",
        "bin/xdp-gossip",
        "bpf/wire.h",
    ]
    assert list(members) == sorted(members)
    assert members["bin/xdp-gossip"].mode == 0o755
    assert members["bpf/wire.h"].mode == 0o644
    assert {(member.uid, member.gid, member.uname) for member in members.values()} == {(0, 0, "root")}


def test_what_cannot_be_built_is_an_error(tmp_path: Path) -> None:
    module = builder()
    with pytest.raises(module.BuildError, match=r"__init__\.py: expected a readable file"):
        module.build(tmp_path, tmp_path / "out")
    tree(tmp_path)
    (tmp_path / "bpf").rename(tmp_path / "other")
    with pytest.raises(module.BuildError, match="bpf: expected a directory, found none"):
        module.build(tmp_path, tmp_path / "out")
    (tmp_path / "other").rename(tmp_path / "bpf")
    native = tmp_path / "agent/xdp_gossip/wire/native.py"
    native.write_text("WIRE_VERSION = 1 + 1\n")
    with pytest.raises(module.BuildError, match=r"native\.py: expected a line such as WIRE_VERSION = 2, got none"):
        module.build(tmp_path, tmp_path / "out")
    native.write_text("WIRE_VERSION = 2\n")
    (tmp_path / "bpf" / "link").symlink_to("/etc/passwd")
    with pytest.raises(module.BuildError, match="symbolic link"):
        module.build(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert module.main(["--root", str(tmp_path), "--output", str(tmp_path / "out")]) == 1


@pytest.mark.slow
def test_the_real_release_runs_from_anywhere_and_imports_only_itself(tmp_path: Path) -> None:
    command = ["/usr/bin/python3", "-I", str(ROOT / "agent" / "build_release.py"), "--output", str(tmp_path)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    release = tmp_path / "releases" / result["release"]
    with tarfile.open(result["path"]) as tar:
        tar.extractall(release)
    (tmp_path / "current").symlink_to(release)
    (tmp_path / "xdp-gossip").symlink_to(tmp_path / "current" / "bin" / "xdp-gossip")
    evil = tmp_path / "evil"
    (evil / "xdp_gossip").mkdir(parents=True)
    (evil / "xdp_gossip" / "__init__.py").write_text("raise SystemExit('imported from the caller')\n")
    done = subprocess.run(
        [str(tmp_path / "xdp-gossip"), "--version"],
        cwd=evil,
        env={"PYTHONPATH": str(evil), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"xdp-gossip {result['version']}\n", "")
    assert (release / "WIRE").read_text() == f"{WIRE_VERSION}\n"
    # The agent and the loader read the data plane's sources from beside them.
    code = "from xdp_gossip.dataplane import headers; print(headers.directory(), len(headers.counters()) > 1)"
    environment = {"PYTHONPATH": str(tmp_path / "current" / "agent"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["/usr/bin/python3", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.stderr) == (f"{release}/bpf True\n", "")


@pytest.mark.slow
def test_a_container_of_the_same_sources_is_included(tmp_path: Path) -> None:
    """By the build or, later, by the role on the controller, which gives the same bytes."""
    path = tmp_path / "programs.xgp"
    path.write_bytes(container.pack(made()))
    with_it = builder().build(ROOT, tmp_path / "with", path)
    without = builder().build(ROOT, tmp_path / "without")
    assert with_it["version"] == without["version"] and with_it["sha256"] != without["sha256"]
    role = module_of(ROOT / "plugins" / "plugin_utils" / "_containers.py")
    embedded = role.with_container(Path(without["path"]).read_bytes(), path.read_bytes())
    assert embedded == Path(with_it["path"]).read_bytes()
    assert role.with_container(embedded, path.read_bytes()) == embedded
    with tarfile.open(with_it["path"]) as archive:
        assert role.carried(archive) == path.read_bytes()
    with tarfile.open(without["path"]) as archive:
        assert role.carried(archive) == b""


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (container.pack(made(sources="ab" * 32)), "the container belongs to another release"),
        (container.pack(made())[:-1], "expected a file of"),
        (b"nothing", "expected a program container"),
    ],
)
def test_a_container_that_does_not_fit_is_an_error(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "programs.xgp"
    path.write_bytes(content)
    release = builder()
    with pytest.raises(release.BuildError, match=told):
        release.checked(ROOT, path)
    assert release.main(["--output", str(tmp_path / "out"), "--root", str(ROOT), "--container", str(path)]) == 1
    assert not list(tmp_path.glob("out/*"))
