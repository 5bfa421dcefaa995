# SPDX-License-Identifier: MIT
"""Errors while a data plane is put up, each with its cause and its remedy."""

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
    """One mode is not possible here; the next one may be."""


class Rejected(Refused):
    """The kernel does not accept a program, which rules out the modes that need it."""


class Starved(Refused):
    """A frame that passed a hook did not reach our program: another program keeps it away."""
