# SPDX-License-Identifier: MIT
"""What ``doctor`` and its parts report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``level`` is ok, warn or fail; ``remedy`` says what to do unless it is ok."""

    level: str
    check: str
    text: str
    remedy: str = ""
