# SPDX-License-Identifier: MIT
"""Data classes for a member's rendered files: the document version in use, and the files that failed or drifted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from .types import Version

#: States of :class:`Applied`.
APPLIED_STATES = ("none", "pending", "applied", "failed")


@dataclass(frozen=True)
class Applied:
    """The state of a document in a member's rendered files.

    ``state``: none (no template of the member uses the document), pending, applied or failed. ``version``: the version
    that ``state`` refers to; None if there is no such document.
    """

    state: str
    version: Version | None = None
    error: str = ""


AppliedSource = Callable[[str], Applied]


def nothing_applied(_key: str) -> Applied:
    """Implements ``applied_source`` for a member that renders no files."""
    return Applied("none")


@dataclass(frozen=True)
class TroubledFile:
    """A rendered file whose content is not what its template and the documents produce.

    ``state``: failed, drifted (the file was changed by hand) or pending (for too long). ``since_ms``: start of that
    state, in milliseconds since 1970.
    """

    template: str
    path: str
    state: str
    since_ms: int
    error: str


@dataclass(frozen=True)
class TroubledFiles:
    """Number of a member's rendered files, number of its troubled files, and a list of the first troubled files.

    A file is troubled if it failed, drifted or is pending.
    """

    templates: int = 0
    troubled: int = 0
    files: tuple[TroubledFile, ...] = ()


#: States of :class:`TroubledFile`.
TROUBLES = ("failed", "drifted", "pending")
FilesSource = Callable[[], TroubledFiles]

#: What ``files_source`` returns on a member that renders no files.
NO_FILES = TroubledFiles()
#: Maximum bytes of a file's path, of a file's error text, and of all file entries together in one answer. An answer
#: must fit into one datagram on every network path.
_MAX_PATH, _MAX_REASON, _MAX_FILES = 255, 256, 960
#: Bytes of one file entry in an answer, without the bytes of its texts (template, path, state and error).
_FRAME = 24


def for_an_answer(found: TroubledFiles) -> TroubledFiles:
    """Return ``found`` with long texts cut, and without the files that do not fit into one datagram.

    The first file always fits.
    """
    files: list[TroubledFile] = []
    left = _MAX_FILES
    for file in found.files:
        cut = replace(file, path=_end(file.path, _MAX_PATH), error=_begin(file.error, _MAX_REASON))
        left -= _FRAME + sum(len(text.encode("utf-8")) for text in (cut.template, cut.path, cut.state, cut.error))
        if left < 0:
            break
        files.append(cut)
    return TroubledFiles(found.templates, found.troubled, tuple(files))


def _begin(text: str, most: int) -> str:
    raw = text.encode("utf-8", "replace")
    return raw.decode() if len(raw) <= most else raw[: most - 3].decode("utf-8", "ignore") + "…"


def _end(text: str, most: int) -> str:
    raw = text.encode("utf-8", "replace")
    return raw.decode() if len(raw) <= most else "…" + raw[3 - most :].decode("utf-8", "ignore")
