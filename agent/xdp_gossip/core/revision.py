# SPDX-License-Identifier: MIT
"""A revision number for a list of nodes.

If the number differs from the one that a reader saw before, some node has changed.
"""

from __future__ import annotations

from typing import Any, ClassVar


class Revision:
    """A number that increases with every visible change in a list of nodes.

    A sign of life alone does not change the number.
    """

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number = 0

    def advance(self) -> None:
        """Add one to the revision number, because a node in the list has changed."""
        self.number += 1


class Shown:
    """Base class of a node in a list with a revision. A change of an attribute in :attr:`SHOWN` advances the revision.

    ``__setattr__`` detects the change. If every writer of an attribute had to advance the revision itself, a forgotten
    call would leave readers with an outdated list.
    """

    __slots__ = ("revision",)

    SHOWN: ClassVar[frozenset[str]] = frozenset()

    #: The revision of the list that contains the node; None while the node is in no list.
    revision: Revision | None

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.SHOWN and self.revision is not None and getattr(self, name) != value:
            self.revision.advance()
        object.__setattr__(self, name, value)
