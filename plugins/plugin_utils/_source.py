# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: reads the NodeList from one member of a fleet, or from most of them."""

from __future__ import annotations

import collections.abc as c
import concurrent.futures
import re
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import Client, Unreachable
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip, parse_json
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._nodes import STATES, parse_nodes
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import (
    BadAnswer,
    ClientError,
    ConfigError,
    Settings,
)

_AT_ONCE = 32
#: RFC 9110, 8.8.3. It goes into a header later, so nothing else may be in it.
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,200}"')


class Answer:
    """What one member answered, checked.

    ``etag`` is empty when there is none to ask with again. ``body`` is the answer as it came, for the cache.
    """

    def __init__(self, endpoint: str, etag: str, body: str) -> None:
        """Raises ``ValueError`` when ``body`` is no NodeList."""
        answer = parse_json(body.encode("utf-8", "surrogatepass"))
        if not isinstance(answer, dict):
            raise ValueError("expected a JSON object, got %s" % type(answer).__name__)
        self.endpoint = endpoint
        self.etag = etag if _ETAG.fullmatch(etag) else ""
        self.body = body
        self.cluster = answer.get("cluster")
        self.nodes, self.problems = parse_nodes(answer.get("nodes"))


class Source:
    """Asks members for nodes in ``states``. ``options`` are the connection options, ``log`` gets one line a failure."""

    def __init__(self, options: c.Mapping[str, t.Any], states: c.Sequence[str], log: c.Callable[[str], None]) -> None:
        self._options = options
        self._states = states
        self._log = log

    def one(self, held: c.Mapping[str, Answer]) -> list[Answer]:
        """The answer of the first endpoint that gives one; ``held`` are earlier answers by endpoint.

        Raises ``ClientError``.
        """
        return [_ask(Settings(self._options), self._states, held, self._log)]

    def majority(self, held: c.Mapping[str, Answer]) -> list[Answer]:
        """The answers of all endpoints that give one, at least of more than half of them, in their order.

        All are asked for the nodes in *every* state, at the same time, each within its own timeout. Raises
        ``ClientError`` naming each endpoint that did not answer and why when too few did.
        """
        endpoints = list(dict.fromkeys(endpoint.url for endpoint in Settings(self._options).endpoints))
        failures: dict[str, str] = {}
        lines: list[str] = []

        def ask(url: str) -> Answer | None:
            settings = Settings(dict(self._options, endpoints=[url]))
            try:
                return _ask(settings, STATES, held, lines.append)
            except ConfigError:
                raise
            except Unreachable as exc:
                failures[url] = exc.attempts[-1][1]
            except ClientError as exc:
                failures[url] = str(exc)
            return None

        with concurrent.futures.ThreadPoolExecutor(min(_AT_ONCE, len(endpoints))) as pool:
            answers = [answer for answer in pool.map(ask, endpoints) if answer is not None]
        for line in lines:
            self._log(line)
        needed = majority_of(len(endpoints))
        if len(answers) < needed:
            raise ClientError(
                "consistency: %d of %d endpoints answered, expected at least %d: %s"
                % (len(answers), len(endpoints), needed, "; ".join("%s: %s" % each for each in failures.items()))
            )
        return answers


def majority_of(endpoints: int) -> int:
    """How many of so many endpoints are more than half."""
    return endpoints // 2 + 1


def _ask(
    settings: Settings, states: c.Iterable[str], held: c.Mapping[str, Answer], log: c.Callable[[str], None]
) -> Answer:
    tags = {url: answer.etag for url, answer in held.items() if answer.etag}
    response = Client(settings, log).request("GET", "/v1/nodes", {"state": ",".join(states)}, held=tags)
    if response.status == 304:
        return held[response.endpoint]
    try:
        return Answer(response.endpoint, response.headers.get("etag", ""), response.body.decode("utf-8"))
    except ValueError as exc:
        raise BadAnswer("%s: expected a NodeList: %s" % (response.endpoint, clip(str(exc)))) from None
