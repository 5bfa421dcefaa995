# SPDX-License-Identifier: MIT
"""Runs ansible-playbook of the ansible-core under test, with the collection under test."""

from __future__ import annotations

import os
import subprocess
import sys
import typing as t
from pathlib import Path

import yaml

#: Where the collection that is tested was found.
#: ansible-playbook of the ansible-core that this Python imports, which may be no installed one.
_PLAYBOOK = "from ansible.cli.playbook import main; main()"
COLLECTIONS = Path(__file__).absolute().parents[5]


def run_playbook(directory: Path, playbook: str, *more: str, fails: bool = False, cwd: Path | None = None) -> str:
    """Run a playbook on this machine; returns the output. Collections in ``directory`` are found, too."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XDP_GOSSIP_")}
    environment.update(
        ANSIBLE_COLLECTIONS_PATH="%s:%s" % (directory, COLLECTIONS),
        ANSIBLE_LOCALHOST_WARNING="false",
        ANSIBLE_NOCOLOR="true",
        ANSIBLE_HOME=str(directory / "home"),
        ANSIBLE_ASYNC_DIR=str(directory / "async"),
        LC_ALL="C.UTF-8",
        ANSIBLE_STDOUT_CALLBACK="default",
    )
    hosts = directory / "hosts"
    hosts.write_text("localhost ansible_connection=local ansible_python_interpreter=%s\n" % sys.executable)
    done = subprocess.run(
        [sys.executable, "-c", _PLAYBOOK, "-vvv", "-i", str(hosts), playbook, *more],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cwd or directory,
        stdin=subprocess.DEVNULL,
        timeout=300,
        check=False,
    )
    output = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, output
    assert "Callback dispatch" not in output and "Removed reserved" not in output, output
    return output


def as_playbook(tasks: list[dict[str, t.Any]]) -> str:
    """Text of a playbook. Not JSON, in which ansible-core 2.18 does not know where a task stands."""
    return yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}])


def play(directory: Path, tasks: list[dict[str, t.Any]], **options: t.Any) -> str:
    """Run tasks likewise."""
    book = directory / "play.yml"
    book.write_text(as_playbook(tasks))
    return run_playbook(directory, str(book), **options)
