# SPDX-License-Identifier: MIT
"""Defines the findings that ``doctor`` reports; each subject declares its finding ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

#: Levels in ascending severity. ``note``: information, nothing is wrong. ``error``: makes ``doctor`` exit with 1.
LEVELS = ("ok", "note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    ``id`` is stable (docs/operations.md, "Findings of doctor"). ``text`` describes the finding, with names and numbers.
    ``remedy`` says what to do; it is empty if ``level`` is ok.
    """

    level: str
    id: str
    text: str
    remedy: str = ""


class Subject:
    """Creates the findings of one subject, with ids of the form ``SUBJECT.WHAT``.

    Each keyword argument declares one WHAT with its allowed levels, separated by spaces; the first level is the
    default.
    """

    #: Subject name -> subject, for the imported modules of ``doctor``.
    ALL: ClassVar[dict[str, Subject]] = {}

    def __init__(self, name: str, **levels: str) -> None:
        self.name = name
        self.levels = {what: tuple(text.split()) for what, text in levels.items()}
        self.ALL[name] = self

    def __call__(self, what: str, text: str, remedy: str, *, level: str = "") -> Finding:
        """Create a finding. Raises ``KeyError`` for an undeclared id and ``ValueError`` for an undeclared level."""
        level = level or self.levels[what][0]
        if level not in self.levels[what]:
            raise ValueError(f"{self.name}.{what}: expected level {' or '.join(self.levels[what])}, got {level}")
        return Finding(level, f"{self.name}.{what}", text, remedy)

    def ok(self, text: str) -> Finding:
        """Create the finding of a check that found no problem."""
        return Finding("ok", f"{self.name}.ok", text)
