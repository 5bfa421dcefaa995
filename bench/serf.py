# SPDX-License-Identifier: MIT
"""Runs agents of HashiCorp Serf, with which the benchmark ``faults`` compares this project's agents.

Serf runs with its default profile ``lan`` and without encryption. The program is that of the Debian package ``serf``.
``.ci/unpack`` unpacks the package into ``.cache/unpacked/serf``, because an installation would start a Serf agent as a
service of this machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from .netns import BenchError, enter, run
from .views import LineParser, Lines, Records, Watcher

ROOT = Path(__file__).resolve().parents[1]
UNPACKED = ROOT / ".cache" / "unpacked" / "serf" / "usr" / "bin" / "serf"
PORT = 7946
_RPC = "127.0.0.1:7373"
_END_SECONDS = 20.0
_EVENT = re.compile(rb"serf: EventMember(Join|Failed|Leave|Reap): host(\d+) ")
#: Lines of the log at level debug: an agent sends a user event, or receives it.
_USER_EVENT = re.compile(rb"(?:Requesting user event send|messageUserEventType): bench(\d+)")


def binary() -> str | None:
    """Path of the program ``serf``; None if this machine does not have it."""
    return str(UNPACKED) if os.access(UNPACKED, os.X_OK) else shutil.which("serf")


def parse(line: bytes) -> Iterator[tuple[int, bool]]:
    """Yield the change of a member's presence in one line of an agent's log."""
    if found := _EVENT.search(line):
        yield int(found[2]), found[1] == b"Join"


def parse_events(line: bytes) -> Iterator[tuple[int, bool]]:
    """Yield the number of a user event ``bench<number>`` that the agent sends or receives."""
    if found := _USER_EVENT.search(line):
        yield int(found[1]), True


class SerfAgent:
    """One Serf agent in the network namespace ``namespace``, named ``host`` and its ``number``.

    ``level``: the lowest severity of messages in its log.
    """

    def __init__(
        self, program: str, namespace: str, number: int, ip: str, seeds: Sequence[str], level: str = "info"
    ) -> None:
        self._program, self._namespace, self._level = program, namespace, level
        self.number, self._ip, self._seeds = number, ip, seeds
        self._process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start the agent. Call this method in the main thread, because the agent ends with the thread."""
        join = [f"-retry-join={seed}" for seed in self._seeds if seed != self._ip]
        self._process = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", *enter(self._namespace)),
                *(self._program, "agent", f"-node=host{self.number}", f"-bind={self._ip}:{PORT}"),
                *(f"-rpc-addr={_RPC}", f"-log-level={self._level}", "-retry-interval=1s", *join),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd="/",
        )

    def attach(self, watcher: Watcher, views: Records, parse: LineParser = parse) -> None:
        """Record in ``views`` what ``parse`` finds in the agent's log; by default, the agent's view of the members.

        Events that clients and handlers of Serf receive are up to three seconds late, because Serf collects them. The
        log has each change at once.
        """
        assert self._process is not None and self._process.stdout is not None
        watcher.add(self._process.stdout.fileno(), views, self.number, Lines(parse))
        self._process.stdout.close()

    def event(self, number: int) -> None:
        """Send the user event ``bench<number>`` to all agents. Raises :class:`BenchError`."""
        words = ("event", "-coalesce=false", f"-rpc-addr={_RPC}", f"bench{number}")
        run(self._program, *words, namespace=self._namespace)

    @property
    def running(self) -> bool:
        """Whether the process exists."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id of the agent."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the agent, if it runs."""
        if self.running:
            os.kill(self.pid, number)

    def end(self) -> None:
        """Kill the agent, and wait until it has ended."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
            if self._process.stdout is not None:
                self._process.stdout.close()

    def present(self) -> set[int]:
        """Ask the agent which other members are alive. Raises :class:`BenchError` if it does not answer."""
        words = ("members", "-status=alive", "-format=json", f"-rpc-addr={_RPC}")
        text = run(self._program, *words, namespace=self._namespace)
        try:
            names = [str(member["name"]) for member in json.loads(text)["members"]]
        except (ValueError, LookupError, TypeError):
            raise BenchError(f"serf members: expected JSON, got {text[:200]!r}") from None
        return {int(name.removeprefix("host")) for name in names} - {self.number}
