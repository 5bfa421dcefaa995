# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: asks every member over the member's own API which documents it has. Python 3.8 or
later.
"""

from __future__ import annotations

import typing as t
from concurrent.futures import ThreadPoolExecutor

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import Client
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._convergence import Question
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip, text_of
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._nodes import canonical_address
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import DEFAULT_PORT, ClientError, Settings

#: Number of members that are asked at the same time. Each request to a member may need memory for one document.
_AT_ONCE = 16


class Direct:
    """Client that asks all members directly, at the same ``port`` and over ``scheme`` (``http`` or ``https``).

    If ``scheme`` or ``port`` is ``None``, the client uses the value of the first endpoint that is not a Unix socket. If
    all endpoints are Unix sockets, the client uses ``http`` and port 8001. The timeout and retries in ``settings``
    apply to each member. Sixteen members are asked at the same time, so ``n`` members take at most ``n / 16`` (rounded
    up) times as long as one member.
    """

    def __init__(self, settings: Settings, scheme: str | None, port: int | None) -> None:
        self._settings = settings
        tcp = [endpoint for endpoint in settings.endpoints if endpoint.scheme != "unix"]
        self._scheme = scheme or (tcp[0].scheme if tcp else "http")
        self._port = port or (tcp[0].port if tcp else DEFAULT_PORT)
        if self._scheme == "https":
            settings.tls()  # create the context once, before the threads use it

    def ask(self, question: Question, results: list[dict[str, t.Any]]) -> list[dict[str, t.Any]]:
        """Return a copy of ``results`` in which each result contains the member's own answer. The field ``reached``
        says whether the member answered.

        ``question`` must have ``version``, ``digest`` or ``absent`` set.
        """
        with ThreadPoolExecutor(max_workers=min(_AT_ONCE, max(1, len(results)))) as pool:
            return list(pool.map(lambda result: self._ask(question, result), results))

    def _ask(self, question: Question, result: dict[str, t.Any]) -> dict[str, t.Any]:
        answer = dict(result, holds=False, version=None, digest=None, deleted=False, reached=False)
        try:
            fleet = Fleet(Client(self._settings.at(self._url(result))))
            answer.update(_held_by(fleet, question), reached=True)
        except ClientError as exc:
            answer["reason"] = "not reached: %s" % clip(str(exc), 400)
            return answer
        answer["holds"] = _meets(question, answer["version"], answer["digest"])
        answer["reason"] = "" if answer["holds"] else _explain(question, answer)
        return answer

    def _url(self, result: dict[str, t.Any]) -> str:
        try:
            address = canonical_address(result.get("addr"))
        except ValueError as exc:
            raise ClientError(str(exc)) from None
        return "%s://%s:%d" % (self._scheme, "[%s]" % address if ":" in address else address, self._port)


def _held_by(fleet: Fleet, question: Question) -> dict[str, str | None]:
    if question.key is None:
        return {"version": None, "digest": text_of(fleet.status(), "digest")}
    held = (fleet.read(question.key) or ({}, b""))[0]
    return {"version": held.get("version"), "digest": held.get("digest")}


def _meets(question: Question, version: str | None, digest: str | None) -> bool:
    if question.absent:
        return digest is None
    if question.version is not None and version != question.version:
        return False
    return digest is not None and question.digest in (None, digest)


def _explain(question: Question, answer: dict[str, t.Any]) -> str:
    if question.key is None:
        return "holds state %s" % clip(str(answer["digest"]), 80)
    return "holds version %s" % clip(str(answer["version"]), 80) if answer["version"] else "has no such document"
