# SPDX-License-Identifier: MIT
"""Limits log lines that others can cause to one a minute for each kind.

Otherwise anybody who reaches a port could fill the journal. The line names the source and says how many more there
were; the counters show the rest.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

#: One kind is logged once in this many seconds.
QUIET_S = 60.0
#: Kinds and, of each kind, sources that are told apart at most; the others share one entry.
MAX_KINDS = 100
MAX_SOURCES = 100
_OTHERS = "others"


class Quiet:
    """Rate-limited log lines of one part of the program. ``clock`` returns monotonic seconds."""

    def __init__(self, log: logging.Logger, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._said: dict[str, float] = {}
        self._hidden: dict[str, Counter[str]] = {}

    def __call__(self, kind: str, text: str, source: str = "") -> None:
        """Log ``text``, and ``source`` if given, unless ``kind`` was logged less than a minute ago."""
        line = self.line(kind, f"{text}, from {source}" if source else text, source)
        if line is not None:
            self._log.warning("%s", line)

    def line(self, kind: str, text: str, source: str = "") -> str | None:
        """``text`` with the number of suppressed lines, or None if this line is suppressed too."""
        if kind not in self._said and len(self._said) >= MAX_KINDS:
            kind = _OTHERS
        now = self._clock()
        said = self._said.get(kind)
        hidden = self._hidden.setdefault(kind, Counter())
        if said is not None and now - said < QUIET_S:
            hidden[source if source in hidden or len(hidden) < MAX_SOURCES else _OTHERS] += 1
            return None
        self._said[kind] = now
        total = sum(hidden.values())
        if total:
            assert said is not None
            most, count = hidden.most_common(1)[0]
            named = f", {count} of them from {most}" if most else ""
            text = f"{text} ({total} more like it in {now - said:.0f} s{named})"
            hidden.clear()
        return text


class QuietFilter(logging.Filter):
    """Lets each message of a logger through once a minute, with the number of suppressed ones."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._quiet = Quiet(logging.getLogger(), clock=clock)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether ``record``, whose kind is its message before the arguments are filled in, is logged."""
        line = self._quiet.line(str(record.msg), record.getMessage())
        if line is None:
            return False
        record.msg, record.args = line, ()
        return True
