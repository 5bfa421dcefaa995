# SPDX-License-Identifier: MIT
"""PekoNode's metadata as a document: one value for the whole cluster, versioned by its publisher's clock.

On the wire a version is a *stamp*: nanoseconds since the epoch. Everywhere else here it is a ``Version``, which has
48 bits of milliseconds, 16 bits of counter and an origin. A stamp says nothing of its origin, and one millisecond
has a million nanoseconds (20 bits), so the origin field is a placeholder that carries the 4 bits that do not fit:
``0.0.0.0:1`` to ``0.0.0.0:16``. The mapping is exact and keeps the order, so members agree on every version.
"""

from __future__ import annotations

from .pekonode_packet import MAX_STAMP
from .types import DEFAULT_KEY, Address, Document, Version

_NS_PER_MS = 1_000_000
_PLACEHOLDER = "0.0.0.0"
_STEP = 16  # stamps that share a counter value: 62,500 values then cover a millisecond, which 16 bits hold


def version_of(stamp: int) -> Version:
    """The version that stands for a stamp (nanoseconds, 0 to ``MAX_STAMP``)."""
    millis, rest = divmod(stamp, _NS_PER_MS)
    counter, low = divmod(rest, _STEP)
    return Version(millis << 16 | counter, Address(_PLACEHOLDER, low + 1))


def stamp_of(version: Version) -> int:
    """Inverse of :func:`version_of`. For a version of another origin (the agent ran another wire before): the
    nearest stamp, so that what was published then keeps its age."""
    millis, counter = version.hlc >> 16, version.hlc & 0xFFFF
    low = version.origin.port - 1 if version.origin.ip == _PLACEHOLDER and version.origin.port <= _STEP else 0
    rest = min(counter * _STEP + low, _NS_PER_MS - 1)
    return min(millis * _NS_PER_MS + rest, MAX_STAMP)


def document_of(stamp: int, value: bytes) -> Document:
    """The document that a packet's metadata is. Author, comment and content type do not travel on this wire."""
    return Document(DEFAULT_KEY, version_of(stamp), value)
