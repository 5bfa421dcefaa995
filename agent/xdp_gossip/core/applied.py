# SPDX-License-Identifier: MIT
"""What a member has made of a document: the answer to who runs which version, not only who holds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .types import Version

#: States of :class:`Applied`.
APPLIED_STATES = ("none", "pending", "applied", "failed")


@dataclass(frozen=True)
class Applied:
    """What became of a document in a member's rendered files.

    ``state``: none (no template there uses it), pending, applied or failed, as of ``version`` (None: no document).
    """

    state: str
    version: Version | None = None
    error: str = ""


AppliedSource = Callable[[str], Applied]


def nothing_applied(_key: str) -> Applied:
    """The source of a member that renders no files."""
    return Applied("none")
