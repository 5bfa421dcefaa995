# SPDX-License-Identifier: MIT
"""Parses constants and counters from ``bpf/*.h``, so that the C programs and the Python code use the same values."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

#: Environment variable: a directory of BPF sources to use instead of the installed BPF sources.
DIRECTORY_VARIABLE = "XDP_GOSSIP_BPF"

_DEFINE = re.compile(r"^#define (XG_[A-Z0-9_]+)[ \t]+(.+?)[ \t]*(?:/\*.*)?$", re.MULTILINE)
_COUNTER = re.compile(r'^\tX\((\w+),\s*"([^"]*)"\)', re.MULTILINE)
_EXPRESSION = re.compile(r"[0-9a-fA-FxX()*+<|\s]+")


class HeaderError(Exception):
    """The BPF sources are missing or cannot be parsed; the message names the file."""


def directory() -> Path:
    """The directory of the BPF sources: beside ``agent/`` in a release and in a checkout. Raises ``HeaderError``."""
    named = os.environ.get(DIRECTORY_VARIABLE)
    path = Path(named) if named else Path(__file__).resolve().parents[3] / "bpf"
    if not (path / "maps.h").is_file():
        raise HeaderError(
            f"{path}: expected the data plane's sources (maps.h and others), found none; a wheel has none: "
            f"take them from a release archive or a checkout, and name their directory in {DIRECTORY_VARIABLE}"
        )
    return path


@functools.cache
def constants() -> Mapping[str, int]:
    """All integer constants in ``wire.h`` and ``maps.h``, by name. Raises ``HeaderError``."""
    found: dict[str, int] = {}
    for name in ("wire.h", "maps.h"):
        text = _read(name)
        for constant, expression in _DEFINE.findall(text):
            plain = re.sub(r"(?<=[0-9a-fA-F])(?:ULL|UL|U|LL|L)\b", "", expression)
            if _EXPRESSION.fullmatch(plain):
                # The line above ensures that the expression consists of digits and operators only.
                found[constant] = int(eval(plain, {"__builtins__": {}}))
    return found


@functools.cache
def counters(sources: Path | None = None) -> Mapping[str, str]:
    """Return counter name -> description, in the order of the counters' indexes. Raises ``HeaderError``.

    ``sources`` is the directory of the BPF sources (default: :func:`directory`).
    """
    found = dict(_COUNTER.findall(_read("counters.h", sources)))
    if not found:
        raise HeaderError(f"{(sources or directory()) / 'counters.h'}: expected a list of counters, found none")
    return found


def sources_digest() -> str:
    """Return the SHA-256 of all BPF sources, with their names, as hexadecimal digits. Raises ``HeaderError``."""
    digest = hashlib.sha256()
    root = directory()
    for path in sorted(path for path in root.rglob("*") if path.suffix in (".c", ".h") and path.is_file()):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root)} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _read(name: str, sources: Path | None = None) -> str:
    path = (sources or directory()) / name
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise HeaderError(f"{path}: {error.strerror}") from None
