# SPDX-License-Identifier: GPL-3.0-or-later
"""Finds the package sources for a base image. By default, a base image comes from the mirrors of this machine.

Reads both formats of sources.list(5), the one-line style and the deb822 style.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)")


def package_sources(suite: str, mirror: str, apt: Path = Path("/etc/apt"), own_suite: str | None = None) -> list[str]:
    """Return one-line apt sources for the release `suite` (component main only).

    If `mirror` is not empty, returns only that mirror. Otherwise returns the sources of this machine for the release
    `suite`, its updates and its security fixes. If there are no such sources, takes the sources of the release that
    this machine runs (`own_suite`, by default from os-release(5)), with `suite` instead of that release. If these are
    missing too, for example because this machine does not run Debian, the list is empty, and mmdebstrap uses its
    default sources.
    """
    if mirror:
        return [f"deb {mirror} {suite} main"]
    if own_suite is None:
        own_suite = _own_suite()
    return _sources_of(suite, suite, apt) or (_sources_of(own_suite, suite, apt) if own_suite else [])


def _own_suite(release: Path = Path("/etc/os-release")) -> str:
    """Return the name of the Debian release that this machine runs, or an empty text if it does not run Debian."""
    values = dict(line.partition("=")[::2] for line in release.read_text(encoding="utf-8").splitlines())
    return values.get("VERSION_CODENAME", "").strip('"') if values.get("ID", "").strip('"') == "debian" else ""


def _sources_of(configured: str, suite: str, apt: Path) -> list[str]:
    """Return the sources of the release `configured` in the directory `apt`, as sources of the release `suite`."""
    endings = ("", "-updates", "-security", "/updates")
    renamed = {f"{configured}{ending}": f"{suite}{ending}" for ending in endings}
    lines = []
    for options, uri, its_suite, components in _entries(apt):
        if its_suite in renamed and "main" in components:
            lines.append(f"deb {f'[{options}] ' if options else ''}{uri} {renamed[its_suite]} main")
    # The sources of updates and security fixes do not contain a complete release.
    has_release = any(line.split()[-2] == suite for line in lines)
    return list(dict.fromkeys(lines)) if has_release else []


def _entries(apt: Path) -> Iterator[tuple[str, str, str, list[str]]]:
    """Yield (options, URI, suite, components) of each enabled binary source."""
    folder = apt / "sources.list.d"
    one_line = [apt / "sources.list", *(sorted(folder.glob("*.list")) if folder.is_dir() else [])]
    for path in one_line:
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
            match = _ONE_LINE.fullmatch(line.partition("#")[0].strip())
            if match:
                yield (
                    (match["options"] or "").strip(),
                    match["uri"],
                    match["suite"],
                    match["components"].split(),
                )
    for path in sorted(folder.glob("*.sources")) if folder.is_dir() else []:
        for stanza in _stanzas(path.read_text(encoding="utf-8")):
            yield from _deb822(stanza)


def _stanzas(text: str) -> Iterator[dict[str, str]]:
    """Yield the stanzas of a deb822 file, with field names in lower case and continuation lines joined."""
    stanza: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if stanza:
                yield stanza
            stanza, name = {}, ""
        elif line[0].isspace() and name:
            stanza[name] += "\n" + line.strip()
        elif ":" in line:
            name, _colon, value = line.partition(":")
            name = name.strip().lower()
            stanza[name] = value.strip()


def _deb822(stanza: dict[str, str]) -> Iterator[tuple[str, str, str, list[str]]]:
    if stanza.get("enabled", "yes").lower() in ("no", "false", "0") or "deb" not in stanza.get("types", "").split():
        return
    options = []
    signed_by = stanza.get("signed-by", "")
    # The one-line style cannot express a key inside the stanza, so apt then uses the keyrings of this machine.
    if signed_by.startswith("/"):
        options.append(f"signed-by={','.join(signed_by.split())}")
    if stanza.get("trusted", "").lower() in ("yes", "true", "1"):
        options.append("trusted=yes")
    for uri in stanza.get("uris", "").split():
        for suite in stanza.get("suites", "").split():
            yield " ".join(options), uri, suite, stanza.get("components", "").split()
