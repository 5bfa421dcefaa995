# SPDX-License-Identifier: MIT
"""Reads a YAML file strictly: the caller requests every value by type and range, and no value is converted.

The reader collects all problems, so that one report names every problem of the file.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

import yaml

from ..core.settings import Knob
from ..core.shown import MOST, cut, shown

IpAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


#: Maximum length in bytes (UTF-8) of a text for which the caller gives no maximum.
_MOST_TEXT = 4096


class ConfigError(ValueError):
    """Raised for a configuration with errors. ``problems`` has one line for each error."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


#: A generated key or token (``wire.keys``, ``config.access``) within a message, and its prefix.
_SECRET = re.compile(r"(xgk1_|xg_)[A-Za-z0-9_-]{40,}")


class Problems(list[str]):
    """The list of problems found so far in the file ``path``, one line each.

    Problems go to the log. A key or a token that was written where its file belongs is not shown.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def append(self, problem: str) -> None:
        """Add a problem."""
        super().append(_SECRET.sub(r"\1(not shown)", problem))

    def expected(self, key: str, what: str, got: str) -> None:
        """Add the problem that ``key`` has the value ``got`` where ``what`` was expected."""
        self.append(f"{self.path}: {key}: expected {what}, got {got}")


def show(value: object) -> str:
    """Format a value for an error message: its type and the beginning of its text; for a collection, only the type."""
    if value is None:
        return "nothing"
    kinds = {bool: "boolean", int: "integer", float: "number", str: "text", list: "list", dict: "mapping"}
    kind = kinds.get(type(value), type(value).__name__)
    if isinstance(value, (list, dict)):
        return f"a {kind}"
    if isinstance(value, bool):
        return f"{kind} {str(value).lower()}"
    return f"{kind} {shown(value) if isinstance(value, (str, int)) else cut(str(value))}"


class _StrictLoader(yaml.SafeLoader):
    """The safe loader of PyYAML, which also collects duplicate keys in ``duplicates``.

    A duplicate key is an error (YAML 1.2, 3.2.1.3), but PyYAML uses the last value without an error.
    """

    duplicates: list[tuple[str, int]]

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _value in node.value:
            name = getattr(key, "value", None)
            if isinstance(name, str):
                if name in seen:
                    self.duplicates.append((name, key.start_mark.line + 1))
                seen.add(name)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, problems: Problems) -> Any:
    """Parse the YAML document in ``text``. On an error, return None and add the error to ``problems``."""
    try:
        loader = _StrictLoader(text)
    except yaml.YAMLError as error:  # the text contains a character that YAML forbids
        problems.expected("file", "YAML text", " ".join(str(error).split()))
        return None
    loader.duplicates = []
    try:
        data = loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "file"
        problems.expected(where, "valid YAML", getattr(error, "problem", None) or "something else")
        return None
    except (RecursionError, ValueError, OverflowError) as error:
        problems.expected("file", "values nested a few levels deep and within range", type(error).__name__)
        return None
    finally:
        loader.dispose()
    for name, line in loader.duplicates:
        problems.expected(name, "the key once", f"it again on line {line}")
    return data


def read_text(path: str, most: int) -> tuple[str | None, str]:
    """Read a regular file of up to ``most`` bytes. Returns (text, ""), or (None, reason) if the file cannot be read."""
    try:
        # Without O_NONBLOCK, opening a FIFO would block until a process opens it for writing.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        return None, f"{getattr(error, 'strerror', None) or error} ({path})"
    try:
        # Python does not close the descriptor of a directory that it refuses to open.
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            os.close(descriptor)
            return None, f"{'a directory' if stat.S_ISDIR(mode) else 'no regular file'} ({path})"
        with open(descriptor, "rb") as stream:
            raw = stream.read(most + 1)
    except OSError as error:
        return None, f"{error.strerror} ({path})"
    if len(raw) > most:
        return None, f"more than {most} bytes ({path})"
    try:
        return raw.decode("utf-8"), ""
    except UnicodeDecodeError as error:
        return None, f"a byte that is not UTF-8 at offset {error.start} ({path})"


def _closest(word: object, known: Sequence[str]) -> str:
    """Return a hint that names the most similar word of ``known``; "" if no word is similar to ``word``."""
    if not isinstance(word, str) or len(word) > MOST:
        return ""
    import difflib  # imported here to save memory, because few files have a mistake

    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), list(by_lower), 1)
    return f" (did you mean {by_lower[close[0]]}?)" if close else ""


class Section:
    """One mapping of the file, with getters for its values.

    A getter always returns a valid value. For a wrong value in the file, the getter adds a problem and returns the
    default.
    """

    def __init__(self, problems: Problems, name: str, data: object, allowed: Sequence[str]) -> None:
        self.problems = problems
        self.name = name
        self.data: dict[object, object] = {}
        if isinstance(data, dict):
            self.data = data
        else:
            problems.expected(name or "file", f"a mapping with {', '.join(allowed)}", show(data))
        for key in self.data:
            if key not in allowed:
                path = self.path(cut(key) if isinstance(key, str) else shown(key))
                hint = _closest(key, allowed)
                problems.expected(path, f"one of {', '.join(allowed)}", f"an unknown key{hint}")

    def path(self, key: str) -> str:
        """The full name of ``key``, such as ``api.tls.cert``."""
        return f"{self.name}.{key}" if self.name else key

    def expected(self, key: str, what: str, got: str) -> None:
        """Add the problem that ``key`` of this section has the value ``got`` where ``what`` was expected."""
        self.problems.expected(self.path(key), what, got)

    def given(self, key: str) -> bool:
        """Whether the file has a value for ``key`` other than null and the empty text."""
        return self.data.get(key) not in (None, "")

    def text(self, key: str, default: str, *, most: int = _MOST_TEXT) -> str:
        """Return the text that the file gives for ``key``: at most ``most`` bytes in UTF-8."""
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            self.expected(key, "text (in quotes when it looks like something else)", show(value))
            return default
        try:
            size = len(value.encode("utf-8"))
        except UnicodeEncodeError:
            self.expected(key, "valid Unicode text", "a lone surrogate")
            return default
        if size > most or "\0" in value:
            self.expected(key, f"at most {most} bytes of text", f"{size} bytes" if size > most else "a NUL character")
            return default
        return value

    def choice(self, key: str, default: str, choices: Sequence[str], *, required: bool = False) -> str:
        """Return the value that the file gives for ``key``. The value must be one of ``choices`` (case matters)."""
        value = self.data.get(key)
        if value is None and not required:
            return default
        if value not in choices or not isinstance(value, str):
            self.expected(key, f"one of {', '.join(choices)}", show(value) + _closest(value, choices))
            return default
        return value

    def boolean(self, key: str, default: bool) -> bool:
        """Return the boolean that the file gives for ``key``."""
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.expected(key, "true or false", show(value))
            return default
        return value

    def integer(self, key: str, default: int, least: int, most: int, *, auto: bool = False) -> int:
        """Return the integer that the file gives for ``key``: from ``least`` to ``most``.

        If ``auto`` is true, the file may contain the word "auto", which selects ``default``.
        """
        value = self.data.get(key)
        if value is None or (auto and value == "auto"):
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.expected(key, f"an integer from {least} to {most}{' or auto' if auto else ''}", show(value))
            return default
        return value

    def number(self, key: str, default: float, least: float, most: float, *, auto: bool = False) -> float:
        """Return the number that the file gives for ``key``: from ``least`` to ``most``.

        If ``auto`` is true, the file may contain the word "auto", which selects ``default``.
        """
        value = self.data.get(key)
        if value is None or (auto and value == "auto"):
            return default
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not good or not math.isfinite(value) or not least <= value <= most:  # type: ignore[arg-type,operator]
            self.expected(key, f"a number from {least:g} to {most:g}{' or auto' if auto else ''}", show(value))
            return default
        return float(value)  # type: ignore[arg-type]

    def setting(self, key: str, knob: Knob) -> Any:
        """Return the file's value for the setting that ``knob`` declares: a flag, a choice, a number or a text."""
        default, (least, most) = knob.agent_default, knob.agent_range
        if knob.never and self.data.get(key) == "never":
            return math.inf
        if knob.kind is bool:
            return self.boolean(key, default)
        if knob.choices:
            return self.choice(key, default, knob.agent_choices)
        if knob.kind is int:
            return self.integer(key, default, int(least), int(most), auto=bool(knob.auto))
        if knob.kind is float:
            return self.number(key, default, least, most, auto=bool(knob.auto))
        text = self.text(key, default, most=int(knob.agent.most or _MOST_TEXT))
        if knob.agent.pattern and not re.fullmatch(knob.agent.pattern, text):
            self.expected(key, knob.agent.words, show(text))
        return text

    def settings(self, declared: Mapping[str, Knob]) -> dict[str, Any]:
        """Read those of the ``declared`` settings that :meth:`setting` supports. Returns a dict: name -> value."""
        return {
            name: self.setting(name, knob) for name, knob in declared.items() if knob.agent.key == "" and not knob.words
        }

    def ip(self, key: str, default: str) -> IpAddress | None:
        """Return the IP address that the file gives for ``key``; None if the file gives no valid address.

        An IPv4-mapped address is returned as IPv4.
        """
        text = self.text(key, default)
        if not text:
            return None
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            self.expected(key, "an IPv4 or IPv6 address", show(text))
            return None
        if getattr(address, "scope_id", None):
            self.expected(key, "an address without a zone", show(text))
            return None
        return getattr(address, "ipv4_mapped", None) or address

    def items(self, key: str, most: int) -> list[object]:
        """Return the list that the file gives for ``key``: at most ``most`` entries."""
        value = self.data.get(key)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > most:
            got = f"a list of {len(value)}" if isinstance(value, list) else show(value)
            self.expected(key, f"a list of at most {most} entries", got)
            return []
        return value

    def section(self, key: str, allowed: Sequence[str], *, required: bool = False) -> Section:
        """Return the mapping that the file gives for ``key`` as a section; an empty section if there is no mapping.

        ``allowed``: keys that the section may contain.
        """
        value = self.data.get(key)
        if value is None and not required:
            value = {}
        return Section(self.problems, self.path(key), value, allowed)

    def absolute_path(self, key: str, default: str, *, empty: bool = False) -> str:
        """Return the absolute path that the file gives for ``key``. If ``empty`` is true, the path may also be ""."""
        value = self.text(key, default)
        if (value or not empty) and not os.path.isabs(value):
            self.expected(key, "an absolute path" + (" or nothing" if empty else ""), show(value))
            return default
        return value

    def file(self, key: str, *, private: bool = False) -> str:
        """Return the absolute path of the file that ``key`` names; "" if the key is not set or the file is unreadable.

        If ``private`` is true, the mode of the file must give other users no access.
        """
        name = self.text(key, "")
        if not name:
            return ""
        path = os.path.join(os.path.dirname(os.path.abspath(self.problems.path)), name)
        _text, reason = read_text(path, 1 << 20)
        if _text is None:
            self.expected(key, "a readable file", reason)
            return ""
        try:
            mode = os.stat(path).st_mode
        except OSError as error:  # somebody has just removed the file
            self.expected(key, "a readable file", f"{error.strerror} ({path})")
            return ""
        if private and mode & 0o007:
            self.expected(
                key,
                "a file that others cannot use (chmod o= FILE)",
                f"mode {stat.S_IMODE(mode):04o} ({path})",
            )
            return ""
        return path

    def secret_file(self, key: str, least: int) -> str:
        """Return the secret from the private file that ``key`` names: one line of at least ``least`` bytes, stripped.

        Returns "" if the key is not set or the file has an error.
        """
        path = self.file(key, private=True)
        if not path:
            return ""
        content = (read_text(path, 1 << 20)[0] or "").strip()
        lines = len(content.splitlines())
        if lines != 1:
            self.expected(key, "a file with one line", f"{lines} lines ({path})")
        elif len(content.encode("utf-8")) < least:
            self.expected(key, f"a secret of at least {least} bytes", f"{len(content.encode('utf-8'))} bytes ({path})")
        else:
            return content
        return ""
