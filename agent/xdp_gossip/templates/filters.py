# SPDX-License-Identifier: MIT
"""Ansible's filters and tests for templates, with Ansible's names, parameters and results (docs/rendering.md).

All filters and tests are pure functions: they do not read files, clocks or random numbers, and do not start programs.
If a filter takes too long, for example because of a slow regular expression, the agent kills the worker process.
"""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable

import jinja2
import yaml

_MERGES = ("replace", "keep", "append", "prepend", "append_rp", "prepend_rp")


def _refuse(value: Any) -> Any:
    """Raise an error for a value that JSON cannot represent. For an undefined value, the error contains the name of
    that value.
    """
    if isinstance(value, jinja2.Undefined):
        str(value)
    raise TypeError(f"expected data, got {type(value).__name__}")


def to_json(
    value: Any,
    indent: int | None = None,
    sort_keys: bool = False,
    ensure_ascii: bool = True,
    separators: tuple[str, str] | None = None,
) -> str:
    """Encode the value as JSON."""
    return json.dumps(
        value,
        indent=indent,
        sort_keys=sort_keys,
        ensure_ascii=ensure_ascii,
        separators=tuple(separators) if separators is not None else None,  # type: ignore[arg-type]
        default=_refuse,
    )


def to_nice_json(value: Any, indent: int = 4, sort_keys: bool = True, ensure_ascii: bool = True) -> str:
    """Encode the value as indented JSON with sorted keys."""
    return to_json(value, indent, sort_keys, ensure_ascii, (",", ": "))


def tojson(value: Any, indent: int | None = None) -> str:
    """Encode the value as JSON with sorted keys. Unlike Jinja2's filter of this name, do not escape HTML, because the
    output is not HTML.
    """
    return to_json(value, indent, sort_keys=True)


class _Dumper(yaml.SafeDumper):
    """A YAML dumper that accepts any kind of dictionary and rejects undefined values."""


_Dumper.add_multi_representer(dict, yaml.SafeDumper.represent_dict)
_Dumper.add_multi_representer(jinja2.Undefined, lambda dumper, value: _refuse(value))


def to_yaml(
    value: Any,
    indent: int | None = None,
    default_flow_style: bool | None = None,
    width: int | None = None,
    sort_keys: bool = True,
    explicit_start: bool = False,
    explicit_end: bool = False,
) -> str:
    """Encode the value as YAML; a collection that contains no other collection is written on one line."""
    text: str = yaml.dump(
        value,
        Dumper=_Dumper,
        allow_unicode=True,
        indent=indent,
        default_flow_style=default_flow_style,
        width=width,
        sort_keys=sort_keys,
        explicit_start=explicit_start,
        explicit_end=explicit_end,
    )
    return text


def to_nice_yaml(
    value: Any,
    indent: int = 4,
    default_flow_style: bool | None = False,
    width: int | None = None,
    sort_keys: bool = True,
    explicit_start: bool = False,
    explicit_end: bool = False,
) -> str:
    """Encode the value as YAML in block style."""
    return to_yaml(value, indent, default_flow_style, width, sort_keys, explicit_start, explicit_end)


def from_yaml(text: str | None) -> Any:
    """Parse one YAML document."""
    return None if text is None else yaml.safe_load(text)


def from_yaml_all(text: str | None) -> list[Any]:
    """Parse all documents of a YAML stream into a list."""
    return [] if text is None else list(yaml.safe_load_all(text))


def b64encode(text: str, encoding: str = "utf-8", urlsafe: bool = False) -> str:
    """Encode a text as base64."""
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    return encode(str(text).encode(encoding)).decode()


def b64decode(text: str, encoding: str = "utf-8", urlsafe: bool = False) -> str:
    """Decode base64 to a text."""
    decode = base64.urlsafe_b64decode if urlsafe else base64.b64decode
    return decode(str(text).encode()).decode(encoding)


def _flags(ignorecase: bool, multiline: bool) -> int:
    return (re.I if ignorecase else 0) | (re.M if multiline else 0)


def regex_replace(
    value: Any = "",
    pattern: str = "",
    replacement: str = "",
    ignorecase: bool = False,
    multiline: bool = False,
    count: int = 0,
    mandatory_count: int = 0,
) -> str:
    """``re.sub``."""
    output, found = re.compile(pattern, _flags(ignorecase, multiline)).subn(replacement, str(value), count=count)
    if mandatory_count and mandatory_count != found:
        raise ValueError(f"regex_replace: expected {mandatory_count} matches of {pattern!r}, got {found}")
    return output


def regex_search(value: Any, regex: str, *groups: str, ignorecase: bool = False, multiline: bool = False) -> Any:
    """Return the text that ``re.search`` matches, or the ``groups`` of the match (``\\1``, ``\\g<name>``); None if
    nothing matches.
    """
    wanted: list[str | int] = []
    for group in groups:
        named = re.fullmatch(r"\\g<(\S+)>", group)
        numbered = re.match(r"\\(\d+)", group)
        if named is None and numbered is None:
            raise ValueError(f"regex_search: expected \\1 or \\g<name>, got {group!r}")
        wanted.append(named[1] if named is not None else int(numbered[1]))  # type: ignore[index]
    found = re.search(regex, str(value), _flags(ignorecase, multiline))
    if found is None:
        return None
    return [found.group(group) for group in wanted] if wanted else found.group()


def regex_findall(value: Any, regex: str, multiline: bool = False, ignorecase: bool = False) -> list[Any]:
    """``re.findall``."""
    return re.findall(regex, str(value), _flags(ignorecase, multiline))


def ternary(value: Any, true_val: Any, false_val: Any, none_val: Any = None) -> Any:
    """Return ``true_val`` if ``value`` is true, else ``false_val``. If ``value`` is None and ``none_val`` is given,
    return ``none_val``.
    """
    if value is None and none_val is not None:
        return none_val
    return true_val if value else false_val


def to_bool(value: Any) -> bool:
    """Whether the value is one of yes, on, true and 1."""
    if isinstance(value, (str, int)):
        return str(value).lower() in ("yes", "on", "true", "1")
    return bool(value == 1)


def quote(value: Any) -> str:
    """Quote a text for use in a shell command."""
    return shlex.quote("" if value is None else str(value))


def hashed(value: Any, hashtype: str = "sha1") -> str:
    """Return the hash of the value in hexadecimal."""
    return hashlib.new(hashtype, str(value).encode(), usedforsecurity=False).hexdigest()


def flatten(values: Iterable[Any], levels: int | None = None, skip_nulls: bool = True) -> list[Any]:
    """Return the items of nested lists as one list. Only ``levels`` levels of lists are flattened (None: all
    levels).
    """
    found: list[Any] = []
    for value in values:
        if skip_nulls and value in (None, "None", "null"):
            continue
        if isinstance(value, (list, tuple)) and (levels is None or levels >= 1):
            found.extend(flatten(value, None if levels is None else levels - 1, skip_nulls))
        else:
            found.append(value)
    return found


def combine(*terms: Any, recursive: bool = False, list_merge: str = "replace") -> dict[Any, Any]:
    """Merge dictionaries; a later dictionary overrides the keys of an earlier dictionary."""
    if list_merge not in _MERGES:
        raise ValueError(f"combine: list_merge: expected one of {', '.join(_MERGES)}, got {list_merge!r}")
    found: dict[Any, Any] | None = None
    for term in reversed(flatten(terms, levels=1)):
        if not isinstance(term, Mapping):
            raise TypeError(f"combine: expected dictionaries, got {type(term).__name__}")
        found = dict(term) if found is None else _merged(term, found, recursive, list_merge)
    return found or {}


def _merged(under: Mapping[Any, Any], over: Mapping[Any, Any], recursive: bool, lists: str) -> dict[Any, Any]:
    found = dict(under)
    if under == over:
        return dict(over)
    for key, value in over.items():
        former = found.get(key)
        if recursive and isinstance(former, Mapping) and isinstance(value, Mapping):
            found[key] = _merged(former, value, recursive, lists)
        elif isinstance(former, list) and isinstance(value, list):
            found[key] = _merged_lists(former, value, lists)
        else:
            found[key] = value
    return found


def _merged_lists(under: list[Any], over: list[Any], how: str) -> list[Any]:
    rest = [item for item in under if item not in over] if how.endswith("_rp") else under
    if how == "keep":
        return under
    if how.startswith("append"):
        return rest + over
    return over + rest if how.startswith("prepend") else over


def dict2items(values: Mapping[Any, Any], key_name: str = "key", value_name: str = "value") -> list[dict[str, Any]]:
    """Convert a dictionary to a list of {key, value} items."""
    return [{key_name: key, value_name: value} for key, value in values.items()]


def items2dict(values: Sequence[Any], key_name: str = "key", value_name: str = "value") -> dict[Any, Any]:
    """Convert a list of {key, value} items to a dictionary."""
    return {item[key_name]: item[value_name] for item in values}


def mandatory(value: Any, msg: str | None = None) -> Any:
    """Return the value. Raise an error if the value is undefined."""
    if isinstance(value, jinja2.Undefined):
        if msg is not None:
            raise ValueError(msg)
        str(value)
    return value


def _unique(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def union(first: Iterable[Any], second: Iterable[Any]) -> list[Any]:
    """Return the items of both lists, each item once."""
    return _unique([*first, *second])


def intersect(first: Iterable[Any], second: Iterable[Any]) -> list[Any]:
    """Return the items that both lists contain, each item once."""
    other = list(second)
    return _unique(value for value in first if value in other)


def difference(first: Iterable[Any], second: Iterable[Any]) -> list[Any]:
    """Return the items of the first list that are not in the second list."""
    other = list(second)
    return _unique(value for value in first if value not in other)


FILTERS: dict[str, Callable[..., Any]] = {
    "to_json": to_json,
    "to_nice_json": to_nice_json,
    "tojson": tojson,
    "to_yaml": to_yaml,
    "to_nice_yaml": to_nice_yaml,
    "from_json": json.loads,
    "from_yaml": from_yaml,
    "from_yaml_all": from_yaml_all,
    "b64encode": b64encode,
    "b64decode": b64decode,
    "regex_replace": regex_replace,
    "regex_search": regex_search,
    "regex_findall": regex_findall,
    "regex_escape": lambda value: re.escape(str(value)),
    "ternary": ternary,
    "bool": to_bool,
    "quote": quote,
    "hash": hashed,
    "flatten": flatten,
    "combine": combine,
    "dict2items": dict2items,
    "items2dict": items2dict,
    "mandatory": mandatory,
    "basename": lambda value: posixpath.basename(str(value)),
    "dirname": lambda value: posixpath.dirname(str(value)),
    "union": union,
    "intersect": intersect,
    "difference": difference,
}


def match(value: Any, pattern: str = "", ignorecase: bool = False, multiline: bool = False) -> bool:
    """Whether the pattern matches at the beginning of the value."""
    return re.match(pattern, str(value), _flags(ignorecase, multiline)) is not None


def search(value: Any, pattern: str = "", ignorecase: bool = False, multiline: bool = False) -> bool:
    """Whether the pattern matches anywhere in the value."""
    return re.search(pattern, str(value), _flags(ignorecase, multiline)) is not None


TESTS: dict[str, Callable[..., bool]] = {
    "match": match,
    "search": search,
    "contains": lambda values, value: value in values,
    "subset": lambda values, others: set(values) <= set(others),
    "superset": lambda values, others: set(values) >= set(others),
}
