# SPDX-License-Identifier: MIT
"""Writes the agent's log to stderr, either as text or as one JSON object per line."""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
from typing import TextIO

from ..core.shown import printable

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

#: Log level -> syslog priority (sd-daemon(3)). journald reads the priority from the beginning of a line.
_PRIORITY = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class TextFormatter(logging.Formatter):
    """Formats lines as ``TIME LEVEL LOGGER: MESSAGE``.

    For systemd's journal, which adds the time itself, a line begins with the priority instead of the time.
    """

    def __init__(self, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """Format ``record`` as a line, followed by the traceback if there is one."""
        text = f"{record.levelname.lower()} {record.name}: {printable(record.getMessage())}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if self._journal:
            prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
            return "\n".join(prefix + line for line in text.splitlines())
        moment = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        return f"{moment:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z {text}"


class JsonFormatter(logging.Formatter):
    """Formats records as JSON ``{"time", "level", "logger", "message"}``, plus ``error`` with the traceback if the
    record contains an exception, plus the fields of an audit record.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Format ``record`` as one JSON object."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.timezone.utc)
        entry = {
            "time": f"{moment:%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=True)


def _to_journal(stream: TextIO) -> bool:
    """Return whether ``stream`` is connected to systemd's journal (systemd.exec(5): JOURNAL_STREAM contains its device
    and inode).
    """
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def configure(level: str, form: str, stream: TextIO | None = None) -> None:
    """Send all log records to ``stream`` (default: stderr). A further call replaces the previous configuration."""
    stream = stream if stream is not None else sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(_to_journal(stream)))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("xdp_gossip").setLevel(LEVELS[level])
    # Audit records are part of the log whatever its level is.
    logging.getLogger("xdp_gossip.audit").setLevel(logging.INFO)
