# SPDX-License-Identifier: GPL-3.0-or-later
"""Publish documents through one member without a pause, and ask every member ten times a second who is alive.

Usage: ``load.py MEMBERS PUBLISHER SECRETS STOP REPORT``. MEMBERS is a JSON object that maps names to URLs of APIs.
PUBLISHER is one of the names. SECRETS is the directory with ``api.token`` and ``ca.crt``. The script runs until the
file STOP exists, at most ten minutes. Then the script waits until every member holds all acknowledged documents, and
writes the JSON file REPORT.

REPORT has these keys. ``members`` contains for each member the numbers ``samples`` (of answers) and ``unanswered``,
``restarted`` (all hosts whose incarnation it saw change) and ``most_away`` (the largest number of hosts that it saw in
another state than alive at one time); ``moment`` maps those hosts to their states (null: not listed), beside the
``second`` of the run. ``acknowledged`` and ``refused`` are numbers of publishes. ``lost`` maps members to acknowledged
documents that they do not hold.

For ``samples`` and ``most_away``, the answers of a member count only from its tenth second of uptime on, because a
restarted member needs a few seconds to learn which members are alive. Each member therefore observes the upgrades of
the other members, not its own.

A host whose agent restarts need not be away for anybody: its kernel answers the probes, and its agent is back before
the other members miss it. The incarnations prove that the members saw the restarts.
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

LIMIT = 600.0
EVERY = 0.1
#: Maximum seconds to wait at the end until all members hold all documents.
SETTLE = 30.0
#: Minimum uptime, in seconds, of a member whose answers count.
GROWN_UP = 10.0
FAULTS = (OSError, http.client.HTTPException, ValueError, KeyError)


class Member:
    """Client of one member's API, with one connection that is opened again after a failure."""

    def __init__(self, url: str, secrets: Path) -> None:
        place = urlsplit(url)
        token = (secrets / "api.token").read_text(encoding="ascii").strip()
        self._tls = ssl.create_default_context(cafile=str(secrets / "ca.crt"))
        self._host, self._port = place.hostname or "", place.port or 8001
        self._headers = {"Authorization": f"Bearer {token}"}
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: bytes | None = None) -> dict:
        """Send a request and return the answer's JSON. Raises one of ``FAULTS``."""
        try:
            if self._connection is None:
                self._connection = http.client.HTTPSConnection(self._host, self._port, timeout=5, context=self._tls)
            self._connection.request(method, path, body, self._headers)
            answer = self._connection.getresponse()
            content = json.loads(answer.read())
            if answer.status >= 300:
                raise ValueError(f"status {answer.status}")
            return content
        except FAULTS:
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            raise


class Run:
    """The state that all threads share: the report, and the documents that the script has published."""

    def __init__(self, members: dict[str, str], publisher: str, secrets: Path, stop: Path) -> None:
        self._urls, self._publisher, self._secrets = members, publisher, secrets
        self._stop = stop
        self._began = time.monotonic()
        self._deadline = self._began + LIMIT
        self.report: dict = {"members": {}, "acknowledged": 0, "refused": 0, "lost": {}}
        self._written: dict[str, str] = {}

    def _goes_on(self) -> bool:
        time.sleep(EVERY)
        return time.monotonic() < self._deadline and not self._stop.exists()

    def watch(self, name: str) -> None:
        """Ask the member ``name`` who is alive until the run stops, and count its answers in the report."""
        member = Member(self._urls[name], self._secrets)
        seen = {"samples": 0, "unanswered": 0, "restarted": [], "most_away": 0, "moment": {}}
        self.report["members"][name] = seen
        since = 0.0
        runs: dict[str, int] = {}
        while self._goes_on():
            try:
                if not since:
                    since = time.monotonic() - member.ask("GET", "/v1/status")["uptime"]
                nodes = member.ask("GET", "/v1/nodes?state=all")["nodes"]
            except FAULTS:
                seen["unanswered"] += 1
                since = 0.0  # the next answer may come from a new process
                continue
            told = {node["name"]: node["incarnation"] for node in nodes if node["name"] in self._urls}
            again = {host for host, incarnation in told.items() if runs.get(host, incarnation) != incarnation}
            seen["restarted"] = sorted(again.union(seen["restarted"]))
            runs.update(told)
            if time.monotonic() - since < GROWN_UP:
                continue
            states = dict.fromkeys(self._urls) | {n["name"]: n["state"] for n in nodes if n["name"] in self._urls}
            away = {host: state for host, state in states.items() if state != "alive"}
            seen["samples"] += 1
            if len(away) > seen["most_away"]:
                second = round(time.monotonic() - self._began, 1)
                seen.update(most_away=len(away), moment={"second": second, **away})

    def publish(self) -> None:
        """Publish documents with different names until the run stops, and count them in the report."""
        member = Member(self._urls[self._publisher], self._secrets)
        number = 0
        while self._goes_on():
            number += 1
            key = f"load/{number:05d}"
            try:
                answer = member.ask("PUT", f"/v1/documents/{key}", f"number {number}".encode())
                self._written[key] = answer["version"]
                self.report["acknowledged"] += 1
            except FAULTS:
                self.report["refused"] += 1

    def settle(self) -> None:
        """Wait at most ``SETTLE`` seconds until all members hold all documents, and report the missing documents."""
        deadline = time.monotonic() + SETTLE
        lost = self.missing()
        while lost and time.monotonic() < deadline:
            time.sleep(1)
            lost = self.missing()
        self.report["lost"] = lost

    def missing(self) -> dict[str, list[str]]:
        """Return for each member the acknowledged documents that it does not hold in the acknowledged version."""
        found = {}
        for name, url in self._urls.items():
            try:
                listed = Member(url, self._secrets).ask("GET", "/v1/documents?prefix=load/")["documents"]
            except FAULTS as error:
                found[name] = [f"does not answer: {error}"]
                continue
            held = {document["key"]: document["version"] for document in listed}
            gone = [key for key, version in self._written.items() if held.get(key) != version]
            if gone:
                found[name] = gone
        return found


def main() -> int:
    """Run the threads until they stop, wait for the members, and write the report."""
    members, publisher, secrets, stop, report = sys.argv[1:6]
    run = Run(json.loads(members), publisher, Path(secrets), Path(stop))
    threads = [threading.Thread(target=run.watch, args=[name]) for name in json.loads(members)]
    threads.append(threading.Thread(target=run.publish))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT + 30)
    run.settle()
    Path(report).write_text(json.dumps(run.report), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
