# SPDX-License-Identifier: MIT
"""The copy that a deployment can go back to: whole or not there, kept when a run was interrupted, put back exactly."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType

import pytest

ROLE = Path(__file__).resolve().parents[2] / "roles" / "agent"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("snapshot", ROLE / "files" / "snapshot.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


snapshot = load()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A host with release 1, a configuration with a secret, and the agent's unit but none of the data plane."""
    for release in ("1-aa", "2-bb"):
        (tmp_path / "opt/releases" / release).mkdir(parents=True)
        (tmp_path / "opt/releases" / release / "VERSION").write_text(release[0] + "\n")
    (tmp_path / "opt/current").symlink_to(tmp_path / "opt/releases/1-aa")
    (tmp_path / "etc/keys").mkdir(parents=True)
    (tmp_path / "etc/templates").mkdir()
    texts = {"etc/agent.yml": "one\n", "etc/keys/1": "secret\n", "etc/templates/site.j2": "one\n"}
    for name, text in {**texts, "agent.service": "[Unit]\n", "files.service": "[Unit]\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o660)  # more than a usual umask leaves to a new file
    up = {"active": True, "enabled": True}
    monkeypatch.setattr(snapshot, "unit", lambda path: {"present": os.path.exists(path), **up})
    return {
        "directory": str(tmp_path / "opt/rollback"),
        "root": str(tmp_path / "opt"),
        "config": str(tmp_path / "etc"),
        "agent": str(tmp_path / "agent.service"),
        "dataplane": str(tmp_path / "dataplane.service"),
        "dataplane_path": str(tmp_path / "dataplane.path"),
        "dataplane_again": str(tmp_path / "dataplane-again.service"),
        "files": str(tmp_path / "files.service"),
        "socket": str(tmp_path / "none.sock"),
    }


def deploy_another(places: dict[str, str]) -> None:
    """What a deployment changes."""
    root = Path(places["root"])
    (root / "current").unlink()
    (root / "current").symlink_to(root / "releases/2-bb")
    config = Path(places["config"])
    (config / "agent.yml").write_text("two\n")
    (config / "keys/1").unlink()
    (config / "api.token").write_text("new\n")
    Path(places["agent"]).write_text("[Unit]\nDescription=other\n")
    for unit in ("dataplane", "dataplane_path", "dataplane_again"):
        Path(places[unit]).write_text("[Unit]\n")
    (config / "templates/site.j2").write_text("two\n")
    (config / "templates/more.j2").write_text("two\n")
    Path(places["files"]).unlink()


def listing(places: dict[str, str]) -> dict[str, tuple[int, str]]:
    """Every file of the host but the copy, with mode and content, or where it links to."""
    top = Path(places["root"]).parent
    found = {}
    for path in sorted(top.rglob("*")):
        if path.is_symlink():
            found[str(path)] = (0, os.readlink(path))
        elif path.is_file() and not str(path).startswith(places["directory"]):
            found[str(path)] = (path.stat().st_mode, path.read_text())
    return found


def test_everything_comes_back(places: dict[str, str]) -> None:
    before = listing(places)
    taken = snapshot.take(places)
    assert (taken["present"], taken["release"], taken["version"], taken["incarnation"]) == (True, "1-aa", "1", -1)
    assert taken["agent"]["present"] and not taken["dataplane"]["present"]
    assert taken["files"]["present"]
    deploy_another(places)
    assert listing(places) != before
    assert snapshot.restore(places) == taken
    assert listing(places) == before


def test_a_helper_that_the_deployment_brought_goes_again(places: dict[str, str]) -> None:
    Path(places["files"]).unlink()
    assert snapshot.take(places)["files"]["present"] is False
    Path(places["files"]).write_text("[Unit]\n")
    snapshot.restore(places)
    assert not Path(places["files"]).exists()


def test_nobody_else_may_look_into_it(places: dict[str, str]) -> None:
    snapshot.take(places)
    assert Path(places["directory"]).stat().st_mode & 0o777 == 0o700
    assert (Path(places["directory"]) / "config/keys/1").read_text() == "secret\n"


def test_the_copy_of_an_interrupted_run_is_kept(places: dict[str, str]) -> None:
    first = snapshot.take(places)
    deploy_another(places)
    assert snapshot.take(places) == first
    snapshot.restore(places)
    assert (Path(places["config"]) / "agent.yml").read_text() == "one\n"


def test_a_copy_that_was_interrupted_is_none(places: dict[str, str]) -> None:
    half = Path(places["directory"] + ".partial")
    (half / "config").mkdir(parents=True)
    Path(places["directory"]).mkdir()
    deploy_another(places)
    assert snapshot.take(places)["release"] == "2-bb"
    assert not half.exists()
    assert (Path(places["directory"]) / "config/agent.yml").read_text() == "two\n"


def test_a_host_without_a_release_has_nothing_to_go_back_to(places: dict[str, str]) -> None:
    (Path(places["root"]) / "current").unlink()
    assert snapshot.take(places)["present"] is False
    assert not Path(places["directory"]).exists()
    with pytest.raises(FileNotFoundError, match="expected the copy"):
        snapshot.restore(places)


def test_a_release_that_is_gone_is_not_linked_to(places: dict[str, str]) -> None:
    snapshot.take(places)
    deploy_another(places)
    old = Path(places["root"]) / "releases/1-aa"
    (old / "VERSION").unlink()
    old.rmdir()
    with pytest.raises(FileNotFoundError):
        snapshot.restore(places)
    assert os.readlink(Path(places["root"]) / "current").endswith("2-bb")


def test_errors_go_to_stderr(
    places: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(snapshot.sys, "argv", ["snapshot.py", "restore", json.dumps(places)])
    assert snapshot.main() == 1
    assert "rollback: expected the copy" in capsys.readouterr().err
