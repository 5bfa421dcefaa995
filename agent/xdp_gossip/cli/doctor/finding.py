# SPDX-License-Identifier: MIT
"""What ``doctor`` reports: findings, whose ids are declared by subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

#: From harmless to worst. ``note``: worth knowing, nothing is wrong. ``error``: makes ``doctor`` exit with 1.
LEVELS = ("ok", "note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    ``id`` is stable (docs/operations.md, "Findings of doctor"); ``text`` has names and numbers; ``remedy`` says what
    to do, and is empty when ``level`` is ok.
    """

    level: str
    id: str
    text: str
    remedy: str = ""


class Subject:
    """Makes the findings of one subject, whose ids are ``SUBJECT.WHAT``.

    The keywords declare each WHAT with the levels that it may have; the first one is the default.
    """

    #: All subjects by name, of the modules that were imported.
    ALL: ClassVar[dict[str, Subject]] = {}

    def __init__(self, name: str, **levels: str) -> None:
        self.name = name
        self.levels = {what: tuple(text.split()) for what, text in levels.items()}
        self.ALL[name] = self

    def __call__(self, what: str, text: str, remedy: str, *, level: str = "") -> Finding:
        """A finding. Raises ``KeyError`` for an id, ``ValueError`` for a level that was not declared."""
        level = level or self.levels[what][0]
        if level not in self.levels[what]:
            raise ValueError(f"{self.name}.{what}: expected level {' or '.join(self.levels[what])}, got {level}")
        return Finding(level, f"{self.name}.{what}", text, remedy)

    def ok(self, text: str) -> Finding:
        """Looked at, and as it should be."""
        return Finding("ok", f"{self.name}.ok", text)
