# SPDX-License-Identifier: MIT
"""What the documentation shows as code: fenced blocks of Markdown files, and EXAMPLES of plugins."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

#: A fence without one of these words shows output, a drawing or a format: nothing that could be run.
_OPEN = re.compile(r"(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<language>[^\s`]*)")
_NOT_CODE = ("", "text")


@dataclass(frozen=True)
class Snippet:
    """Some code of the documentation.

    ``path`` is relative to the checkout, ``line`` that of the first line of ``text``; ``kind`` the word behind the
    fence, or ``examples`` for a plugin's EXAMPLES.
    """

    path: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line} ({self.kind})"

    @property
    def lines(self) -> list[str]:
        """Its lines that are neither empty nor comments, without indentation."""
        stripped = [line.strip() for line in self.text.splitlines()]
        return [line for line in stripped if line and (not line.startswith("#") or self.kind == "console")]


def fences(path: str, text: str) -> Iterator[Snippet]:
    """The code blocks of a Markdown text. Raises ValueError for a fence that is never closed."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opened = _OPEN.match(lines[number])
        number += 1
        if not opened:
            continue
        first = number
        closing = re.compile(r" *" + re.escape(opened["fence"]) + opened["fence"][0] + r"* *")
        while number < len(lines) and not closing.fullmatch(lines[number]):
            number += 1
        if number == len(lines):
            raise ValueError(f"{path}:{first}: expected the end of this code block, found the end of the file")
        indent = len(opened["indent"])
        body = "".join(f"{line[indent:] if not line[:indent].strip() else line}\n" for line in lines[first:number])
        number += 1
        if opened["language"] not in _NOT_CODE:
            yield Snippet(path, first + 1, opened["language"], body)


def constant(source: str, name: str) -> tuple[int, str]:
    """The line and the text of a constant of a Python source, without running it; (0, "") when there is none."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == name for target in node.targets):
            return node.lineno, ast.literal_eval(node.value)
    return 0, ""


def examples(path: str, source: str) -> Snippet | None:
    """The EXAMPLES of a plugin's source; None when it has none."""
    line, text = constant(source, "EXAMPLES")
    return Snippet(path, line + 1, "examples", text) if text.strip() else None


def tracked(*patterns: str) -> list[str]:
    """Files of the checkout that git tracks or would, by patterns of git's."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return sorted({name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()})


def all_snippets() -> list[Snippet]:
    """All code of the documentation."""
    found = [snippet for path in tracked("*.md") for snippet in fences(path, (ROOT / path).read_text())]
    for path in tracked("plugins/**/*.py", "extensions/eda/plugins/event_source/*.py"):
        snippet = examples(path, (ROOT / path).read_text())
        if snippet:
            found.append(snippet)
    return found
