# SPDX-License-Identifier: MIT
"""The order of versions."""

from __future__ import annotations

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._versions import newest, older, rank

#: In the order of the agents: clock, address (IPv4 as ::ffff:0:0/96), port.
ORDERED = [
    "0000000000000001@198.18.0.11:8000",
    "0000000000000002@[::1]:8000",
    "0000000000000002@9.0.0.1:8000",
    "0000000000000002@198.18.0.11:8000",
    "0000000000000002@198.18.0.11:8001",
    "0000000000000002@[2001:db8::1]:1",
    "0000000000000002@[fd00::1]:1",
    "000000000000000a@1.0.0.1:1",
    "ffffffffffffffff@1.0.0.1:1",
]


def test_order():
    assert sorted(ORDERED[3:] + ORDERED[:3], key=rank) == ORDERED
    assert newest(list(reversed(ORDERED)) + [None, "nonsense"]) == ORDERED[-1]
    for first, second in zip(ORDERED, ORDERED[1:]):
        assert older(first, second) and not older(second, first) and not older(first, first)


@pytest.mark.parametrize(
    "text",
    [
        None,
        7,
        "",
        "1@198.18.0.11:8000",
        "000000000000000G@198.18.0.11:8000",
        "0000000000000001@host:8000",
        "0000000000000001@[198.18.0.11:8000",
        "0000000000000001@999.1.1.1:80",
        "0000000000000001@198.18.0.11:8000\n",
    ],
)
def test_what_is_no_version_has_no_place_in_it(text):
    assert rank(text) is None and newest([text]) is None
    assert not older(text, ORDERED[0]) and not older(ORDERED[0], text)
