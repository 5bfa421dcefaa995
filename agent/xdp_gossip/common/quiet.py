# SPDX-License-Identifier: MIT
"""Limits the rate of log lines that other hosts can cause. Each kind of message is logged at most once a minute.

Without the limit, anyone who can reach a port could fill the journal. Each line that is logged names its source and the
number of similar lines that were suppressed before it. The agent's counters also count the events whose log lines were
suppressed.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable

#: Seconds between two log lines of the same kind.
QUIET_S = 60.0
#: Maximum number of kinds of log lines that are counted separately, and maximum number of sources that are counted
#: separately for each kind. The kinds beyond the maximum share one entry. The sources of a kind beyond the maximum also
#: share one entry.
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
        """Return ``text`` plus the number of suppressed lines of this ``kind``, or None if this line is suppressed."""
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
    """Logging filter that passes each message at most once a minute.

    The filter appends the number of suppressed messages.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._quiet = Quiet(logging.getLogger(), clock=clock)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log ``record``. Records with the same format string count as one kind of line."""
        line = self._quiet.line(str(record.msg), record.getMessage())
        if line is None:
            return False
        record.msg, record.args = line, ()
        return True
