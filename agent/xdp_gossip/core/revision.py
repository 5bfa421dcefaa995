# SPDX-License-Identifier: MIT
"""Tells whether a list of nodes shows anything new, without looking at any node."""

from __future__ import annotations

from typing import Any, ClassVar


class Revision:
    """A number that grows with every change that a list of nodes shows. A sign of life alone is no change."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def advance(self) -> None:
        """Note a change."""
        self.number += 1


class Shown:
    """Base class of a node in such a list. A change of an attribute in :attr:`SHOWN` advances the list's revision.

    The attributes are watched here, not where they are written: if one writer forgot to advance the revision, a reader
    would keep an old list for good.
    """

    __slots__ = ("revision",)

    SHOWN: ClassVar[frozenset[str]] = frozenset()

    #: The revision of the list that contains the node; None before it is in a list.
    revision: Revision | None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.SHOWN and self.revision is not None and getattr(self, name) != value:
            self.revision.advance()
        object.__setattr__(self, name, value)
