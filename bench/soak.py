# SPDX-License-Identifier: MIT
"""Runs a fleet for hours under changes and faults, and shows whether anything grows or is lost.

Each agent runs in a network namespace. All the time documents are published, changed and deleted through random agents.
Meanwhile agents are restarted, killed, stopped for a while and frozen, and the fleet is cut in two. A third of the
agents, the *steady* ones, is never restarted, so their memory, descriptors, state and log show growth. At the end all
faults are mended. Then all agents must have the same documents, and each document must have the value that was
acknowledged last. A request that failed may have taken effect, so its value is accepted, too. A deletion through an
agent that holds no such document changes nothing, so it does not count, even if another agent holds the document.

``--seconds`` sets the duration (default: two hours), ``--hosts`` the number of agents (default: 30).
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any

from . import agents, netns
from .agents import Agent
from .fleet import HUB, fleet, form, port_of
from .netns import BenchError
from .netns import run as command
from .report import Report

_HOSTS, _SECONDS, _SETTLED, _EVERY = 30, 7200.0, 600.0, 30.0
_QUICK_HOSTS, _QUICK_SECONDS, _QUICK_SETTLED, _QUICK_EVERY = 5, 30.0, 6.0, 2.0
#: Number of document keys, and the share of large documents and their size in bytes.
_KEYS, _LARGE_SHARE, _LARGE = 300, 0.01, 64 * 1024
#: Seconds between two actions, and the weight of each kind of action.
_PAUSE = 0.2
_WEIGHTS = {"publish": 200, "delete": 20, "restart": 3, "kill": 3, "rest": 2, "freeze": 2, "split": 1}
_QUICK_WEIGHTS = {"publish": 40, "delete": 10, "restart": 3, "kill": 3, "rest": 3, "freeze": 3, "split": 3}
#: At most this share of the agents is stopped or frozen at a time.
_AWAY = 0.2
#: Seconds that a stopped or frozen agent and a cut last.
_LASTS = (2.0, 30.0)
#: Maximum seconds until all agents agree at the end.
_AGREE = 120.0
#: Goals: maximum ratio of a figure of the steady agents at the end to the figure after the first ten minutes.
GROWTH_GOAL, STATE_GOAL, LOG_GOAL = 1.1, 1.5, 1.5
_SECOND_BRIDGE = f"{netns.PREFIX}cut"


@dataclass(frozen=True)
class Sample:
    """What one agent used at ``when`` (seconds since the start)."""

    when: float
    resident_kib: int
    descriptors: int
    state_bytes: int
    log_bytes: int


@dataclass
class Documents:
    """What was published: the values that were acknowledged (None: deleted), and values that may have taken effect."""

    acknowledged: dict[str, bytes | None] = field(default_factory=dict)
    doubtful: dict[str, set[bytes | None]] = field(default_factory=dict)

    def told(self, key: str, value: bytes | None, done: bool) -> None:
        """Note the answer to a request. What was doubtful before has an earlier version, and cannot win any more."""
        if done:
            self.acknowledged[key] = value
            self.doubtful.pop(key, None)
        else:
            self.doubtful.setdefault(key, set()).add(value)

    def lost(self, held: Callable[[str], bytes | None]) -> list[str]:
        """The keys whose value, as ``held`` returns it, is neither acknowledged nor doubtful."""
        keys = self.acknowledged.keys() | self.doubtful.keys()
        return sorted(k for k in keys if held(k) not in {self.acknowledged.get(k), *self.doubtful.get(k, ())})


class Soak:
    """A fleet, and what is done to it."""

    def __init__(self, hosts: Sequence[Agent], weights: Mapping[str, int], seed: int) -> None:
        self.hosts = hosts
        self._weights = weights
        self.steady = hosts[::3]
        self.rng = random.Random(seed)
        self.documents = Documents()
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.samples: dict[str, list[Sample]] = {host.name: [] for host in self.steady}
        self._began = time.monotonic()
        self._number = 0
        # Agents that are stopped or frozen, with the time at which that ends; and the end of the cut.
        self._stopped: dict[Agent, float] = {}
        self._frozen: dict[Agent, float] = {}
        self._cut: tuple[list[int], float] | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    def run(self, seconds: float, every: float) -> None:
        """Act for ``seconds``, and take a sample every ``every`` seconds."""
        kinds, weights = list(self._weights), list(self._weights.values())
        sampled = 0.0
        while self.elapsed < seconds:
            self._mend(self.elapsed)
            (kind,) = self.rng.choices(kinds, weights)
            getattr(self, kind)()
            self.done[kind] += 1
            if self.elapsed - sampled >= every:
                sampled = self.elapsed
                self._sample()
            time.sleep(_PAUSE)
        self._mend(float("inf"))
        self._sample()

    # -- documents ---------------------------------------------------------------------------------------------

    def publish(self) -> None:
        """Publish one document through a random agent."""
        self._number += 1
        size = _LARGE if self.rng.random() < _LARGE_SHARE else self.rng.randint(1, 2000)
        value = f"{self._number} ".encode() + self.rng.randbytes(size)
        self._request("PUT", self._key(), value)

    def delete(self) -> None:
        """Delete one document through a random agent."""
        self._request("DELETE", self._key(), None)

    def _key(self) -> str:
        return f"soak/{self.rng.randrange(_KEYS):03d}"

    def _request(self, method: str, key: str, value: bytes | None) -> None:
        host = self.rng.choice([host for host in self.hosts if host not in self._stopped and host not in self._frozen])
        try:
            answer = host.ask(method, f"/v1/documents/{key}", value)
        except (OSError, HTTPException):
            done, changed = False, True
        else:
            done = 200 <= answer.status < 300
            changed = not done or bool(answer.json["changed"])
        self.failed[method] += not done
        if changed:
            self.documents.told(key, value, done)

    # -- faults ------------------------------------------------------------------------------------------------

    def restart(self) -> None:
        """Stop an agent as systemd does, and start it again."""
        for host in self._one():
            host.stop()
            host.launch()

    def kill(self) -> None:
        """Kill an agent, and start it again."""
        for host in self._one():
            host.kill()
            host.launch()

    def rest(self) -> None:
        """Stop an agent for a while."""
        for host in self._one():
            host.stop()
            self._stopped[host] = self.elapsed + self.rng.uniform(*_LASTS)

    def freeze(self) -> None:
        """Stop the process of an agent for a while, without its knowledge."""
        for host in self._one():
            host.signal(signal.SIGSTOP)
            self._frozen[host] = self.elapsed + self.rng.uniform(*_LASTS)

    def split(self) -> None:
        """Cut off a part of the hosts, by a bridge of their own."""
        if self._cut is None:
            few = self.rng.sample(range(len(self.hosts)), self.rng.randint(1, max(1, len(self.hosts) // 3)))
            self._cut = (few, self.elapsed + self.rng.uniform(*_LASTS))
            self._attach(few, _SECOND_BRIDGE)

    def _one(self) -> list[Agent]:
        """A random agent that runs and may be disturbed; none if enough are away."""
        away = self._stopped.keys() | self._frozen.keys()
        if len(away) + 1 > max(1.0, _AWAY * len(self.hosts)):
            return []
        return [self.rng.choice([host for host in self.hosts if host not in self.steady and host not in away])]

    def _mend(self, now: float) -> None:
        """End the faults whose time has come."""
        for host in [host for host, until in self._stopped.items() if until <= now]:
            del self._stopped[host]
            host.launch()
        for host in [host for host, until in self._frozen.items() if until <= now]:
            del self._frozen[host]
            host.signal(signal.SIGCONT)
        if self._cut is not None and self._cut[1] <= now:
            self._attach(self._cut[0], f"{netns.PREFIX}br")
            self._cut = None

    @staticmethod
    def _attach(numbers: Sequence[int], bridge: str) -> None:
        netns.batch([f"link set {port_of(number)} master {bridge}" for number in numbers], HUB)

    # -- figures -----------------------------------------------------------------------------------------------

    def _sample(self) -> None:
        for host in self.steady:
            state = sum(path.stat().st_size for path in host.state_dir.rglob("*") if path.is_file())
            descriptors = len(os.listdir(f"/proc/{host.pid}/fd"))
            log = host.log.stat().st_size
            self.samples[host.name].append(Sample(self.elapsed, host.resident_kib, descriptors, state, log))

    def disagreement(self) -> str | None:
        """What the agents do not agree on; None if nothing."""
        digests = set()
        for host in self.hosts:
            status = host.status()
            digests.add(status["digest"])
            if status["members"]["alive"] != len(self.hosts):
                return f"{host.name} lists {status['members']['alive']} members, expected {len(self.hosts)}"
        return f"the documents digests are {sorted(digests)}" if len(digests) > 1 else None

    def held(self, key: str) -> bytes | None:
        """The value of a document at a steady agent; all have the same after :meth:`disagreement` returned None."""
        answer = self.steady[-1].ask("GET", f"/v1/documents/{key}")
        return answer.body if answer.status == 200 else None


def run(quick: bool, hosts: Sequence[int] = (), seconds: float = 0.0) -> Report:
    """Run this benchmark and return its report. ``quick``: make fewer and shorter runs. Raises ``BenchError``."""
    count = hosts[0] if hosts else _QUICK_HOSTS if quick else _HOSTS
    lasts = seconds or (_QUICK_SECONDS if quick else _SECONDS)
    settled, every = (_QUICK_SETTLED, _QUICK_EVERY) if quick else (_SETTLED, _EVERY)
    seed = random.SystemRandom().randrange(1 << 32)
    with fleet(count, "UDP" if quick else "XDP", cycle=1) as agents_, _second_bridge():
        form(agents_, count)
        soak = Soak(agents_, _QUICK_WEIGHTS if quick else _WEIGHTS, seed)
        soak.run(lasts, every)
        for host in agents_:
            host.wait_ready(_AGREE)
        agreed = agents.until(soak.disagreement, _AGREE)
        lost = soak.documents.lost(soak.held)
    if lost:
        raise BenchError(f"seed {seed}: {len(lost)} documents lost an acknowledged value: {', '.join(lost[:5])}")
    return _report(soak, min(settled, lasts / 4), lasts, agreed, seed)


@contextlib.contextmanager
def _second_bridge() -> Iterator[None]:
    command("ip", "-n", HUB, "link", "add", _SECOND_BRIDGE, "type", "bridge")
    command("ip", "-n", HUB, "link", "set", _SECOND_BRIDGE, "up")
    yield  # the bridge is deleted with the namespace of the hub


def _report(soak: Soak, settled: float, lasts: float, agreed: float, seed: int) -> Report:
    report = Report(
        "soak",
        f"{len(soak.hosts)} agents for {lasts:,.0f} s; {len(soak.steady)} steady ones; all agreed {agreed:.1f} s after "
        "the last fault",
        ("figure of the steady agents", f"after {settled:,.0f} s", "at the end", "ratio, median", "ratio, greatest"),
    )
    for name, of, goal, unit in (
        ("resident MB", "resident_kib", GROWTH_GOAL, 1024.0),
        ("descriptors", "descriptors", GROWTH_GOAL, 1.0),
        ("state MB", "state_bytes", STATE_GOAL, 1e6),
    ):
        before = [_around(samples, of, settled) for samples in soak.samples.values()]
        after = [_around(samples, of, lasts) for samples in soak.samples.values()]
        ratios = [last / first for first, last in zip(before, after)]
        cells = (statistics.median(before) / unit, statistics.median(after) / unit)
        report.rows.append(
            (name, *(f"{cell:.1f}" for cell in cells), f"{statistics.median(ratios):.3f}", f"{max(ratios):.3f}")
        )
        report.data[of] = {"before": before, "after": after}
        report.most(f"{name}: greatest ratio", max(ratios), goal)
    halves = [_log_halves(samples, settled, lasts) for samples in soak.samples.values()]
    first, second = (statistics.median(half) for half in zip(*halves))
    report.rows.append(("log kB an hour", f"{first:.1f}", f"{second:.1f}", f"{second / max(first, 1e-9):.3f}", ""))
    report.most("log kB an hour, second half to first", second / max(first, 1e-9), LOG_GOAL)
    done = ", ".join(f"{kind} {number:,}" for kind, number in sorted(soak.done.items()))
    report.text += f"; {done}; {sum(soak.failed.values())} requests failed; nothing that was acknowledged is lost"
    report.data.update(seed=seed, done=dict(soak.done), failed=dict(soak.failed), agreed=agreed)
    report.data["samples"] = {name: [vars(each) for each in samples] for name, samples in soak.samples.items()}
    return report


def _around(samples: Sequence[Sample], name: str, when: float) -> float:
    """The median of the three samples that are nearest to ``when``: a garbage collection or a transfer is no growth."""
    near = sorted(samples, key=lambda sample: abs(sample.when - when))[:3]
    return float(statistics.median(getattr(sample, name) for sample in near))


def _log_halves(samples: Sequence[Sample], start: float, end: float) -> tuple[float, float]:
    """kB an hour that were logged in the first and in the second half of the time from ``start`` to ``end``."""
    marks = (start, (start + end) / 2, end)
    sizes: list[Any] = [min(samples, key=lambda sample, mark=mark: abs(sample.when - mark)) for mark in marks]
    first, second = (
        (late.log_bytes - early.log_bytes) / max(late.when - early.when, 1e-9) * 3.6
        for early, late in zip(sizes, sizes[1:])
    )
    return first, second
