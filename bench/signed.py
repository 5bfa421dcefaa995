# SPDX-License-Identifier: MIT
"""Measures what signatures cost: a publish to all, a sync of many documents, and the verification itself.

All figures of signed documents stand beside the same figure of unsigned documents, which comes from the same run. The
benchmark signs with an Ed25519 key in its own process, so the time of the signer does not count. A publish to all is
measured as in ``convergence``: the benchmark publishes a signed and an unsigned document in turn, through the API of a
random agent. A sync is measured as in ``sync``: a member that was stopped receives new versions of all unsigned or of
all signed documents, in turn, while every member holds both.
"""

from __future__ import annotations

import json
import random
import time

from tests.support.signer import Draft, Key, documents, writes
from xdp_gossip.core.signatures import text_of_time
from xdp_gossip.core.signers import Signers
from xdp_gossip.core.types import Document
from xdp_gossip.signing.sshsig import armored, verify

from . import agents, packets
from .agents import Agent
from .convergence import http, publish
from .fleet import fleet, form
from .netns import BenchError
from .report import Report, Spread
from .sync import away, differ

_HOSTS, _PUBLISHES, _DOCUMENTS, _SYNCS, _CHECKS = 50, 30, 10_000, 5, 3_000
_QUICK_HOSTS, _QUICK_PUBLISHES, _QUICK_DOCUMENTS, _QUICK_SYNCS, _QUICK_CHECKS = 3, 2, 100, 1, 100
#: Goals: how many times as long a publish of a signed document may take, and the least speed of a sync of signed
#: documents, as a share of the speed without signatures.
PUBLISH_GOAL, SYNC_GOAL = 1.3, 0.5
_KEY = Key(1)


def run(quick: bool) -> Report:
    """Run this benchmark and return its report. ``quick``: make fewer and shorter runs. Raises ``BenchError``."""
    hosts, publishes = (_QUICK_HOSTS, _QUICK_PUBLISHES) if quick else (_HOSTS, _PUBLISHES)
    count, rounds = (_QUICK_DOCUMENTS, _QUICK_SYNCS) if quick else (_DOCUMENTS, _SYNCS)
    checks = _QUICK_CHECKS if quick else _CHECKS
    report = Report(
        "signed",
        f"signed documents beside unsigned ones (Ed25519; XDP, {hosts} agents; UDP, 3 agents, {count:,} documents)",
        ("what", "unsigned", "signed", "ratio"),
    )
    _publishes(report, hosts, publishes)
    _syncs(report, count, rounds)
    _verifications(report, checks)
    return report


def _settings() -> dict[str, object]:
    return {"cycle": 1, "signers": [{"name": "bench", "public_key": _KEY.line, "prefixes": ["signed/"]}]}


def _publishes(report: Report, size: int, publishes: int) -> None:
    found: dict[bool, list[float]] = {False: [], True: []}
    with fleet(size, "XDP", **_settings()) as hosts:
        form(hosts, size, probed=True)
        for number in range(1, 2 * publishes + 1):
            signs = number % 2 == 0
            request = _request([Draft("signed/bench", str(number).encode())]) if signs else None
            times = publish(hosts, random.randrange(size), (), number, request).agents
            if len(times) == size:
                found[signs].append(max(times))
    if not found[False] or not found[True]:
        raise BenchError("no publish reached all agents")
    plain, signed = Spread.of(found[False]), Spread.of(found[True])
    ratio = signed.median / plain.median
    report.rows.append(("ms to every agent", plain.text(".1f"), signed.text(".1f"), f"{ratio:.2f}"))
    report.data["publish"] = {"unsigned_ms": plain.json(), "signed_ms": signed.json()}
    report.most("publishes that did not reach everybody", 2 * publishes - len(found[False]) - len(found[True]), 0)
    report.most("time of a signed publish / that of an unsigned one", ratio, PUBLISH_GOAL)


def _syncs(report: Report, count: int, rounds: int) -> None:
    took: dict[bool, list[float]] = {False: [], True: []}
    used: dict[bool, list[float]] = {False: [], True: []}
    with fleet(3, "UDP", **_settings()) as hosts:
        form(hosts, 3)
        for signs in (False, True):
            _write(hosts[0], count, signs, "first")
        agents.until(lambda: differ(hosts), 60)
        for number in range(rounds):
            for signs in (False, True):
                seconds, _, _, processor = away(
                    hosts, lambda signs=signs, number=number: _write(hosts[0], count, signs, str(number))
                )
                took[signs].append(seconds)
                used[signs].append(processor / count * 1e6)
    plain, signed = Spread.of(took[False]), Spread.of(took[True])
    cells = (plain.text(".2f"), signed.text(".2f"), f"{signed.median / plain.median:.2f}")
    report.rows.append((f"s to receive {count:,} documents", *cells))
    report.data["sync"] = {"documents": count, "unsigned_s": plain.json(), "signed_s": signed.json()}
    report.least("speed of a sync of signed documents / of unsigned ones", plain.median / signed.median, SYNC_GOAL)
    plain, signed = Spread.of(used[False]), Spread.of(used[True])
    cells = (plain.text(".0f"), signed.text(".0f"), f"{signed.median / plain.median:.2f}")
    report.rows.append(("us of the receiver's processors for each document", *cells))
    report.data["sync_processor"] = {"unsigned_us": plain.json(), "signed_us": signed.json()}


def _write(host: Agent, count: int, signs: bool, text: str) -> None:
    for number in range(count):
        value = f"{text:5} value of document {number:05d}, for what that is worth".encode()
        if signs:
            path, body = "/v1/documents", _body([Draft(f"signed/host{number:05d}", value)])
            host.call("POST", path, body)
        else:
            host.call("PUT", f"/v1/documents/plain/host{number:05d}", value)


def _verifications(report: Report, count: int) -> None:
    signers = Signers(packets.CLUSTER, [_KEY.signer("bench", "signed/")], verify)
    made = [_signed(number) for number in range(count)]
    began = time.process_time()
    for document in made:
        signers.check(document)
    each = (time.process_time() - began) / count
    report.rows.append(("documents verified per second of processor", "-", f"{1 / each:,.0f}", "-"))
    report.data["verified_per_second"] = 1 / each


def _signed(number: int) -> Document:
    draft = Draft(f"signed/{number}", b"%d" % number)
    return documents(_KEY, time.time_ns() // 1000, draft, cluster=packets.CLUSTER)[0]


def _request(drafts: list[Draft]) -> bytes:
    return http("POST", "/v1/documents", _body(drafts))


def _body(drafts: list[Draft]) -> bytes:
    now = time.time_ns() // 1000
    signature = writes(_KEY, now, *drafts, cluster=packets.CLUSTER)[0].signed
    assert signature is not None
    entries = [{"key": draft.key, "value": draft.value.decode(), "content_type": "raw"} for draft in drafts]
    body = {"documents": entries, "signed_at": text_of_time(now), "signature": armored(signature.blob)}
    return json.dumps(body).encode()
