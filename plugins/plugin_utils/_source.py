# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: reads the NodeList from one member or from the majority of the members of a fleet."""

from __future__ import annotations

import collections.abc as c
import concurrent.futures
import re
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import Client, Unreachable
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip, parse_json
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._nodes import (
    STATES,
    parse_nodes,
    states_query,
)
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import (
    BadAnswer,
    ClientError,
    ConfigError,
    Settings,
)

_AT_ONCE = 32
#: Pattern of an entity tag (RFC 9110, 8.8.3). Tags with other characters are rejected, because they could insert text
#: into the header of a request.
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e]{0,200}"')


class Answer:
    """The checked NodeList of one member.

    ``etag`` is the entity tag for a conditional request, or empty. ``body`` is the unchanged text of the answer. The
    cache stores ``body``.
    """

    def __init__(self, endpoint: str, etag: str, body: str) -> None:
        """Parse and check ``body``. Raises ``ValueError`` if ``body`` is not a valid NodeList."""
        answer = parse_json(body.encode("utf-8", "surrogatepass"))
        if not isinstance(answer, dict):
            raise ValueError("expected a JSON object, got %s" % type(answer).__name__)
        self.endpoint = endpoint
        self.etag = etag if _ETAG.fullmatch(etag) else ""
        self.body = body
        self.cluster = answer.get("cluster")
        #: Whether no other member answers this member, so that its NodeList may be wrong.
        self.isolated = answer.get("isolated") is True
        self.nodes, self.problems = parse_nodes(answer.get("nodes"))


class Source:
    """Requests NodeLists from members.

    ``options`` are the connection options, and ``states`` are the states of the nodes to read. ``log`` is called with
    one line for each failed endpoint, and ``warn`` with one line for each isolated member.
    """

    def __init__(
        self,
        options: c.Mapping[str, t.Any],
        states: c.Sequence[str],
        log: c.Callable[[str], None],
        warn: c.Callable[[str], None],
    ) -> None:
        self._options = options
        self._states = states
        self._log = log
        self._warn = warn

    def one(self, held: c.Mapping[str, Answer]) -> list[Answer]:
        """Return the answer of the first endpoint that answers and is not isolated. Raises ``ClientError``.

        If only isolated members answer, return the answer of the last of them, because a host behind the same fault may
        be reachable. ``held`` maps endpoints to earlier answers, for conditional requests.
        """
        urls = list(dict.fromkeys(endpoint.url for endpoint in Settings(self._options).endpoints))
        isolated: Answer | None = None
        while True:
            try:
                answer = _ask(Settings(dict(self._options, endpoints=urls)), self._states, held, self._log)
            except Unreachable as exc:
                if isolated is None:
                    raise
                self._log(str(exc))
                break
            if not answer.isolated:
                return [answer]
            isolated, urls = answer, urls[urls.index(answer.endpoint) + 1 :]
            if not urls:
                break
            self._warn("%s is isolated, as no other member answers it: asking the next endpoint" % answer.endpoint)
        self._warn(
            "%s is isolated, as no other member answers it, and there is no better answer: the states of its NodeList "
            "may be wrong" % isolated.endpoint
        )
        return [isolated]

    def majority(self, held: c.Mapping[str, Answer]) -> list[Answer]:
        """Return the answers of all endpoints that answer, in the order of the endpoints.

        The method asks all endpoints at the same time for the nodes in *every* state. The timeout applies to each
        endpoint separately. An isolated member counts as failed. If half of the endpoints or more fail, the method
        raises ``ClientError`` with each failed endpoint and the reason. ``held`` maps endpoints to earlier answers, for
        conditional requests.
        """
        endpoints = list(dict.fromkeys(endpoint.url for endpoint in Settings(self._options).endpoints))
        failures: dict[str, str] = {}
        lines: list[str] = []

        def ask(url: str) -> Answer | None:
            settings = Settings(dict(self._options, endpoints=[url]))
            try:
                answer = _ask(settings, STATES, held, lines.append)
                if not answer.isolated:
                    return answer
                failures[url] = "isolated, as no other member answers it"
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
        for answer_url in (url for url in endpoints if failures.get(url, "").startswith("isolated")):
            self._warn("%s is %s: its NodeList is left out" % (answer_url, failures[answer_url]))
        needed = majority_of(len(endpoints))
        if len(answers) < needed:
            raise ClientError(
                "consistency: %d of %d endpoints answered, expected at least %d: %s"
                % (len(answers), len(endpoints), needed, "; ".join("%s: %s" % each for each in failures.items()))
            )
        return answers


def majority_of(endpoints: int) -> int:
    """Return the smallest number of endpoints that is more than half of ``endpoints``."""
    return endpoints // 2 + 1


def _ask(
    settings: Settings, states: c.Iterable[str], held: c.Mapping[str, Answer], log: c.Callable[[str], None]
) -> Answer:
    tags = {url: answer.etag for url, answer in held.items() if answer.etag}
    response = Client(settings, log).request("GET", "/v1/nodes", {"state": states_query(states)}, held=tags)
    if response.status == 304:
        return held[response.endpoint]
    try:
        return Answer(response.endpoint, response.headers.get("etag", ""), response.body.decode("utf-8"))
    except ValueError as exc:
        raise BadAnswer("%s: expected a NodeList: %s" % (response.endpoint, clip(str(exc)))) from None
