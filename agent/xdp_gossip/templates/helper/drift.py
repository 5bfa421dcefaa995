# SPDX-License-Identifier: MIT
"""Whether the files that were put in place are still what was put there; what was is in the helper's own directory.

The files are looked at every two seconds, by inode, size and times first: a look at 64 files costs 3
milliseconds, sees files on every file system and in directories that were exchanged, and misses none when events come
too fast, all of which inotify(7) does not.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from typing import Any

from ...config.templates import MAX_CONTENT, TemplateConfig
from .held import Held, PlaceError
from .own import Own, walk
from .rights import Rights

_NOTE = "placed"


def expected(template: TemplateConfig, content: bytes) -> dict[str, Any]:
    """What is remembered of a file that was put in place."""
    return {"digest": hashlib.sha256(content).hexdigest(), "rights": _rights(template)}


def remember(own: Own, template: TemplateConfig, placed: dict[str, Any]) -> None:
    """Remember what is in place now."""
    if own.recall(template.path, _NOTE) != placed:
        own.note(template.path, _NOTE, placed)


def left_alone(own: Own, template: TemplateConfig, wanted: dict[str, Any]) -> bool:
    """Whether a file that is not ``wanted`` has been changed by hand since exactly that was put in place."""
    return template.drift == "report" and own.recall(template.path, _NOTE) == wanted


def _rights(template: TemplateConfig) -> list[Any]:
    return [template.owner, template.group, template.mode]


@dataclass(frozen=True)
class _Seen:
    identity: tuple[Any, ...]
    verdict: str


class Watch:
    """Looks again and again at the files of templates, and reads those only that have another look."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def look(self, template: TemplateConfig, own: Own) -> str:
        """How the file differs from what was put in place, or "". Raises OSError and PlaceError of ``own``."""
        placed = own.recall(template.path, _NOTE)
        if placed is None or placed.get("rights") != _rights(template):
            return ""  # never put in place, or configured otherwise since: the next rendering decides
        directory, base = os.path.split(template.path)
        try:
            descriptor, _ = walk(directory)
            try:
                held = Held.open(base, descriptor, template.path)
            finally:
                os.close(descriptor)
        except PlaceError as error:
            return f"changed by hand: {error}"
        if held is None:
            return "changed by hand: the file was removed"
        with held:
            found = held.status
            times = (found.st_mtime_ns, found.st_ctime_ns)
            identity = (found.st_dev, found.st_ino, found.st_size, *times, placed["digest"])
            seen = self._seen.get(template.path)
            if seen is None or seen.identity != identity:
                seen = self._seen[template.path] = _Seen(identity, _compare(held, template, placed))
        return seen.verdict


def _compare(held: Held, template: TemplateConfig, placed: dict[str, Any]) -> str:
    digest = held.digest(MAX_CONTENT)
    if digest is None or digest.hex() != placed["digest"]:
        return "changed by hand: the content is another"
    if not Rights.of(template, held).has(held):
        return "changed by hand: owner, group or mode are others"
    return ""
