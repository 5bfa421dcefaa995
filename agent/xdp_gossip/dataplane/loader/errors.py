# SPDX-License-Identifier: MIT
"""What goes wrong while a data plane is put up, in words that name the cause and the remedy."""

from __future__ import annotations


class LoaderError(Exception):
    """``up`` or ``down`` cannot go on.

    ``reason`` is one line, ``remedy`` says what to do about it, ``detail`` is what compiler or verifier said last.
    """

    def __init__(self, reason: str, remedy: str = "", detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.detail = detail


class Refused(LoaderError):
    """One mode cannot be had here; the next one may."""


class Rejected(Refused):
    """The kernel does not accept a program. That costs the modes that need the program."""


class Starved(Refused):
    """A frame that travelled through a hook did not come to our program: another program keeps it away."""
