# SPDX-License-Identifier: MIT
"""What the members make of alerts: multi-process cut detection (Rapid, USENIX ATC 2018, section 4.2).

A member counts the distinct observers that report a subject. Below the low watermark the reports are noise: one broken
path, one sick observer. From the low watermark on the subject is suspect, at the high one it is removed. A subject that
stays between them for the suspicion time is removed, too, unless it refutes the reports with a new incarnation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Callable

from ..detector import Detector
from ..members.membership import Membership
from ..members.peer import Peer
from ..members.timing import ROUND_INTERVAL
from ..messages import Alert, Alerts
from ..outbox import Local, Outbox
from ..received import Received
from ..runs import later
from ..types import Address, EdgeState, Now, State
from .edges import REPEATED_AT_LAST
from .rings import NEIGHBOURS, Rings, watermarks

#: Seconds for which reports may stay between the watermarks until the subject is removed.
SUSPICION = 10.0
#: Rounds after which a report ends that its observer did not repeat: the observer was restarted and forgot it.
_REPORT_ENDS = 3 * REPEATED_AT_LAST
#: Rounds for which a subject between the watermarks holds back the removal of others, so that members that fail
#: together are removed together.
_HELD_BACK = 1
#: Rounds between two refutations of this node. The suspicion time is longer, so a node that hears the reports and is
#: heard always refutes in time; reports that come within these rounds reach the high watermark.
_REFUTES_EVERY = 5
#: Rounds for which a subject stays between the watermarks until this node asks another member about it, and again.
_ASKS_EVERY = 2


@dataclass(frozen=True)
class Report:
    """The state of the edge from one observer to one subject, as the observer told it last.

    ``returns``: how often the subject had returned at this node. What is told of a subject before it returns is no
    evidence afterwards.
    """

    incarnation: int
    state: EdgeState
    when: float
    returns: int


@dataclass(frozen=True)
class Tally:
    """The number of distinct observers that report each state of a subject, and the watermarks that apply.

    ``silent``: observers that report nothing, and may be unable to.
    """

    failed: int
    agent_down: int
    silent: int
    low: int
    high: int

    @property
    def whole(self) -> bool:
        """Whether nearly all observers report the subject, those counted that may be unable to."""
        told = self.failed + self.agent_down
        return told >= self.low and told + self.silent >= self.high

    @property
    def suspicious(self) -> bool:
        """Whether enough observers report a failure of the host for a suspicion."""
        return self.failed >= self.low


class Cuts:
    """The reports about all subjects, and the state changes that follow from them."""

    def __init__(self, local: Local, membership: Membership, detector: Detector, rings: Rings, out: Outbox) -> None:
        self._local = local
        self._membership = membership
        self._detector = detector
        self._rings = rings
        self._out = out
        self._reports: dict[Address, dict[Address, Report]] = {}
        # Subjects between the watermarks, and subjects above the high one, each with the time since when.
        self._between: dict[Address, float] = {}
        self._over: dict[Address, float] = {}
        # Silent subjects whose host answers without an agent, as some observers report, with the time since when.
        self._agentless: dict[Address, float] = {}
        # Subjects that at least the low watermark of observers report.
        self._doubted: set[Address] = set()
        self._refuted_at: float | None = None
        # Since when enough observers for a suspicion report this node under its present incarnation.
        self._accused_since: float | None = None
        self._asked_at = -math.inf
        #: Whether this process did not run a moment ago, so that the reports that waited for it may be outdated.
        self.has_stalled: Callable[[Now], bool] = lambda now: False
        #: Called when this node should compare its NodeList with that of another member.
        self.on_stuck: Callable[[Now], None] = lambda now: None
        #: Called when enough observers report this node for its removal under an incarnation.
        self.on_removed: Callable[[int, Now], None] = lambda incarnation, now: None

    @property
    def busy(self) -> bool:
        """Whether a subject waits for a decision, so that :meth:`tick` is needed."""
        return bool(self._reports)

    def on_alerts(self, message: Alerts, packet: Received) -> None:
        """Take the alerts of another member."""
        self.take(packet.origin, message.alerts, packet.now)

    def take(self, observer: Address, alerts: tuple[Alert, ...], now: Now) -> None:
        """Take the alerts of ``observer``, which may be this node."""
        self._rings.update(self._membership.observed)
        for alert in alerts:
            if alert.subject == self._local.address and later(alert.incarnation, self._local.incarnation):
                self._detector.on_accused(alert.incarnation, now)
            elif self._counts(observer, alert):
                self._note(observer, alert, now)
            else:
                self._out.count("alerts_ignored")
        self.tick(now)

    def _counts(self, observer: Address, alert: Alert) -> bool:
        """Whether an alert is about a present run of a member, and its sender may be an observer of that member."""
        subject = alert.subject
        if observer == subject or observer not in self._rings:
            return False
        if subject not in self._rings and not (
            alert.state is EdgeState.AGENT_DOWN and self._is_gone_by_silence(subject)
        ):
            return False
        return not later(self._run_of(subject), alert.incarnation) and observer in self._rings.observers(
            subject, NEIGHBOURS
        )

    def _is_gone_by_silence(self, subject: Address) -> bool:
        peer = self._membership.get(subject)
        return peer is not None and self._detector.is_gone_by_silence(peer)

    def _run_of(self, subject: Address) -> int:
        if subject == self._local.address:
            return self._local.incarnation
        peer = self._membership.get(subject)
        return peer.incarnation if peer is not None else 0

    def _returns_of(self, subject: Address) -> int:
        peer = self._membership.get(subject)
        return peer.liveness.returns if peer is not None else 0

    def _note(self, observer: Address, alert: Alert, now: Now) -> None:
        reports = self._reports.setdefault(alert.subject, {})
        if alert.state is EdgeState.OK:
            reports.pop(observer, None)
        else:
            reports[observer] = Report(alert.incarnation, alert.state, now.mono, self._returns_of(alert.subject))

    def tally(self, subject: Address, now: Now) -> Tally:
        """Count the valid reports about ``subject``.

        Observers that are reported themselves count as reporting (Rapid's implicit alerts); otherwise a rack that loses
        its power would never be complete, because its hosts observe each other.
        """
        reports = self._valid(subject, now)
        observers = self._rings.observers(subject)
        failed = sum(state is EdgeState.FAILED for state in reports.values())
        silent = sum(observer not in reports and self._is_silent(observer) for observer in observers) if reports else 0
        return Tally(failed, len(reports) - failed, silent, *watermarks(len(observers)))

    def _valid(self, subject: Address, now: Now) -> dict[Address, EdgeState]:
        """The reports about the present run of ``subject``, by observer; outdated reports are dropped."""
        run, returns = self._run_of(subject), self._returns_of(subject)
        ends = now.mono - _REPORT_ENDS * ROUND_INTERVAL
        kept = self._reports.get(subject, {})
        for observer, report in list(kept.items()):
            if report.when < ends or report.returns != returns or observer not in self._rings:
                del kept[observer]
        return {o: report.state for o, report in kept.items() if not later(run, report.incarnation)}

    def _is_silent(self, observer: Address) -> bool:
        """Whether a member may have failed itself, so that nobody can expect its reports."""
        peer = self._membership.get(observer)
        return observer in self._doubted or (peer is not None and peer.liveness.state is State.AGENT_DOWN)

    def answers(self, subject: Address, now: Now) -> bool:
        """Whether an observer reports that the host of ``subject`` answers although its agent does not run."""
        return self.tally(subject, now).agent_down > 0

    def tick(self, now: Now) -> None:
        """Decide about each subject with reports."""
        if self._detector.suspended:
            return
        self._doubted = {subject for subject in self._reports if self._is_doubted(subject, now)}
        for subject in list(self._reports):
            if subject not in self._reports:
                continue  # a decision about another subject began a round
            if subject in self._rings or self._is_gone_by_silence(subject):
                self._decide(subject, now)
            else:
                self._forget(subject)
                self._agentless.pop(subject, None)
                del self._reports[subject]
        self._remove(now)
        self._ask_around(now)

    def misses_reports(self, subject: Address, now: Now) -> bool:
        """Whether a subject has stayed between the watermarks for so long that reports may have missed this node."""
        since = self._between.get(subject, math.inf)
        return subject not in self._over and now.mono - since >= _ASKS_EVERY * ROUND_INTERVAL

    def _ask_around(self, now: Now) -> None:
        """Ask a member about subjects that stay between the watermarks: this node may have missed a report.

        A member that has removed the subject reports and repeats nothing about it any more.
        """
        stuck = any(self.misses_reports(subject, now) for subject in self._between)
        if stuck and now.mono - self._asked_at >= _ASKS_EVERY * ROUND_INTERVAL:
            self._asked_at = now.mono
            self.on_stuck(now)

    def _is_doubted(self, subject: Address, now: Now) -> bool:
        """Whether at least the low watermark of observers report a subject."""
        return len(self._valid(subject, now)) >= watermarks(len(self._rings.observers(subject)))[0]

    def _decide(self, subject: Address, now: Now) -> None:
        tally = self.tally(subject, now)
        peer = self._membership.get(subject)
        if subject == self._local.address:
            self._defend(tally, now)
        elif tally.whole and tally.agent_down > tally.failed:
            self._forget(subject)
            if peer is not None:
                self._detector.host_answers(peer, now)
        elif peer is not None and self._detector.is_gone_by_silence(peer):
            # It may return at any moment. A suspicion from before its return would remove it again.
            self._forget(subject)
            if not tally.suspicious:
                self._wait_for_agent(peer, tally, now)
        elif tally.whole:
            self._between.setdefault(subject, now.mono)
            self._over.setdefault(subject, now.mono)
        elif tally.suspicious:
            self._over.pop(subject, None)
            since = self._between.setdefault(subject, now.mono)
            if peer is not None:
                self._detector.accuse(peer, now)
            if now.mono - since >= SUSPICION:
                self._over[subject] = since
        else:
            self._forget(subject)
            if peer is not None:
                self._detector.acquit(peer, now)
                self._wait_for_agent(peer, tally, now)
        if not self._reports.get(subject, True):
            del self._reports[subject]

    def _wait_for_agent(self, peer: Peer, tally: Tally, now: Now) -> None:
        """Believe the low watermark of observers that a host has no agent, if that lasts and the agent is silent.

        When many members fail together, members may differ in whom they observe, and no subject gets all its reports.
        """
        if tally.agent_down < tally.low or not self._detector.is_silent(peer, now):
            self._agentless.pop(peer.address, None)
        elif now.mono - self._agentless.setdefault(peer.address, now.mono) >= SUSPICION:
            del self._agentless[peer.address]
            self._detector.host_answers(peer, now)

    def _forget(self, subject: Address) -> None:
        self._between.pop(subject, None)
        self._over.pop(subject, None)

    def _remove(self, now: Now) -> None:
        """Remove what is to be removed, all at once.

        A subject that has just become suspect may fail together with the others, so it holds them back for a moment.
        """
        if not self._over or self.has_stalled(now):
            return
        waits = self._between.keys() - self._over.keys()
        held = _HELD_BACK * ROUND_INTERVAL
        if waits and now.mono - min(self._over.values()) < held:
            return
        for subject in list(self._over):
            self._forget(subject)
            self._agentless.pop(subject, None)
            self._reports.pop(subject, None)
            peer = self._membership.get(subject)
            if peer is not None and peer.liveness.state not in (State.LEFT, State.DEAD):
                self._detector.condemn(peer, now)

    def _defend(self, tally: Tally, now: Now) -> None:
        """Refute reports about this node, if they are enough for a suspicion, but not if they remove it."""
        if not tally.suspicious:
            self._accused_since = None
        elif self._accused_since is None:
            self._accused_since = now.mono
        # Like any subject, this node is removed by reports that stay. It is told so only if it is heard.
        lasted = self._accused_since is not None and now.mono - self._accused_since >= SUSPICION
        if lasted or (tally.whole and tally.failed >= tally.agent_down):
            self.on_removed(self._local.incarnation, now)
            return
        pause = _REFUTES_EVERY * ROUND_INTERVAL
        if not tally.suspicious or (self._refuted_at is not None and now.mono - self._refuted_at < pause):
            return
        accused = self._local.incarnation
        self._detector.on_accused(accused, now)
        if self._local.incarnation != accused:
            # Otherwise most others do not hear this node at this moment, and it tries again at the next report.
            self._refuted_at, self._accused_since = now.mono, None
