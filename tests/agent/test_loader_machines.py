# SPDX-License-Identifier: MIT
"""Machines that the data plane's programs are not for are refused with the reason, before programs are looked for."""

from __future__ import annotations

import sys

import pytest

from xdp_gossip.dataplane.loader.errors import LoaderError
from xdp_gossip.dataplane.loader.stock import Stock


@pytest.mark.parametrize(
    ("order", "most", "told"),
    [
        ("big", 2**63 - 1, "big-endian, Python of 64 bits"),
        ("little", 2**31 - 1, "little-endian, Python of 32 bits"),
        ("big", 2**31 - 1, "big-endian, Python of 32 bits"),
    ],
)
def test_other_machines_are_refused(monkeypatch: pytest.MonkeyPatch, order: str, most: int, told: str) -> None:
    monkeypatch.setattr(sys, "byteorder", order)
    monkeypatch.setattr(sys, "maxsize", most)
    with pytest.raises(LoaderError, match=told) as refused:
        Stock().part("dataplane.c")
    assert "for little-endian machines of 64 bits" in refused.value.reason
    assert "over UDP" in refused.value.remedy
