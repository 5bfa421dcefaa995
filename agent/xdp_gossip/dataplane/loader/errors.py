# SPDX-License-Identifier: MIT
"""Errors of the loader, each with its reason and its remedy."""

from __future__ import annotations


class LoaderError(Exception):
    """``up`` or ``down`` cannot continue.

    ``reason`` is one line, ``remedy`` says what to do, ``detail`` contains the last output of the compiler or verifier.
    """

    def __init__(self, reason: str, remedy: str = "", detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy
        self.detail = detail


class Refused(LoaderError):
    """One mode is not possible on this host. After this error, the loader tries the next mode."""


class Rejected(Refused):
    """The kernel rejects a program, so all modes that need this program are impossible."""


class Starved(Refused):
    """A frame that passed a hook did not reach our program, because another program at the hook intercepts frames."""
