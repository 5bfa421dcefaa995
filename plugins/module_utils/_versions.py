# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: compares the versions of documents. Python 3.8 or later."""

from __future__ import annotations

import ipaddress
import re
import typing as t

_VERSION = re.compile(r"([0-9a-f]{16})@(?:\[([0-9a-f:.]{2,45})\]|([0-9.]{7,15})):([0-9]{1,5})")

#: Prefix of an IPv4 address in the form of an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2).
_MAPPED = bytes(10) + b"\xff\xff"


def rank(version: t.Any) -> tuple[int, bytes, int] | None:
    """Return a sort key for a version. The agents use the same order: by clock reading, then by address and port of the
    publisher.

    The address in the sort key has 16 bytes. Returns ``None`` if ``version`` is not a version. An example of a version
    is 019a3c1e5b2f0000@198.18.0.11:8000.
    """
    match = _VERSION.fullmatch(version) if isinstance(version, str) else None
    if not match:
        return None
    try:
        address = ipaddress.ip_address(match.group(2) or match.group(3))
    except ValueError:
        return None
    packed = address.packed if address.version == 6 else _MAPPED + address.packed
    return (int(match.group(1), 16), packed, int(match.group(4)))


def newest(versions: t.Iterable[t.Any]) -> str | None:
    """Return the newest of ``versions``. Ignore values that are not versions. Return ``None`` if no value is a
    version.
    """
    known = [(rank(version), version) for version in versions]
    ranked = sorted((order, version) for order, version in known if order is not None)
    return ranked[-1][1] if ranked else None


def older(version: t.Any, than: t.Any) -> bool:
    """Return whether ``version`` is older than ``than``. Return false if ``version`` or ``than`` is not a version."""
    first, second = rank(version), rank(than)
    return first is not None and second is not None and first < second
