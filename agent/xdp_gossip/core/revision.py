# SPDX-License-Identifier: MIT
"""Tells whether a list of nodes shows anything new, without looking at any node."""

from __future__ import annotations

from typing import Any, ClassVar


class Revision:
    """A number that grows with every change that a list of nodes shows. Signs of life alone are none."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def advance(self) -> None:
        """Something changed."""
        self.number += 1


class Shown:
    """A node in such a list. Its attributes in :attr:`SHOWN` advance the list's revision when they change.

    They are watched here, not where they are written: one place that forgets to tell would let a reader keep an old
    list for good.
    """

    __slots__ = ("revision",)

    SHOWN: ClassVar[frozenset[str]] = frozenset()

    #: That of the list which the node is in, once it is.
    revision: Revision | None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.SHOWN and self.revision is not None and getattr(self, name) != value:
            self.revision.advance()
        object.__setattr__(self, name, value)
