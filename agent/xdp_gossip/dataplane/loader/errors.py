# SPDX-License-Identifier: MIT
"""What goes wrong while a data plane is put up, in words that name the cause and the remedy."""

from __future__ import annotations


class LoaderError(Exception):
    """``up`` or ``down`` cannot go on. ``remedy`` says what to do about it."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class Refused(LoaderError):
    """One mode cannot be had here; the next one may."""
