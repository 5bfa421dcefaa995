# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: parses the private data of nodes as JSON or YAML.

The text comes from another machine (at most 4 KiB, see ``_nodes``). The result consists only of dictionaries, lists,
texts, numbers, booleans and ``None``, with limited depth. The result contains no Python objects of other types, and no
YAML aliases, which could expand to gigabytes.
"""

from __future__ import annotations

import math
import typing as t

import yaml
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import MAX_JSON_DIGITS, clip, parse_json

try:
    from yaml import CSafeLoader as _Loader
except ImportError:  # PyYAML built without libyaml
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]

#: Maximum number of nested levels. The description of a machine needs three or four levels.
MAX_DEPTH = 16

_OPEN = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSE = (yaml.MappingEndEvent, yaml.SequenceEndEvent)
_ANCHORED = (yaml.ScalarEvent, *_OPEN)


class _PlainLoader(_Loader):
    """YAML loader that returns dates and times as text, because JSON has no dates."""


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def parse_private_data(text: str, form: str) -> t.Any:
    """Parse ``text``, where ``form`` is "json" or "yaml". Returns ``None`` for text that is empty or white space.

    Raises ``ValueError`` if the text cannot be parsed, or contains data that this module does not accept.
    """
    if not text.strip():
        return None
    data = parse_json(text.encode("utf-8")) if form == "json" else _parse_yaml(text)
    _check(data, MAX_DEPTH)
    return data


def _parse_yaml(text: str) -> t.Any:
    try:
        _check_events(text)
        return yaml.load(text, Loader=_PlainLoader)
    except yaml.YAMLError as exc:
        raise ValueError("not YAML: %s" % clip(" ".join(str(exc).split()))) from None
    except (TypeError, AttributeError, OverflowError, RecursionError) as exc:
        # The YAML loader has defects, so it also raises exceptions other than YAMLError, for example for "!!float x".
        raise ValueError("not YAML: %s" % clip(str(exc))) from None


def _check_events(text: str) -> None:
    """Raise ``ValueError`` if the YAML text contains aliases, tags, several documents or deep nesting. The check runs
    before the loader builds objects.
    """
    depth = documents = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError("YAML: expected no aliases: a few bytes of them make gigabytes")
        if isinstance(event, _ANCHORED) and event.tag is not None:
            raise ValueError("YAML: expected no tags, got %s" % clip(event.tag, 80))
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        if documents > 1:
            raise ValueError("YAML: expected one document")
        depth += isinstance(event, _OPEN)
        depth -= isinstance(event, _CLOSE)
        if depth > MAX_DEPTH:
            raise ValueError("YAML: nested deeper than %d" % MAX_DEPTH)


def _check(value: t.Any, left: int) -> None:
    """Raise ``ValueError`` unless ``value`` is plain data with at most ``left`` levels."""
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, (dict, list)):
        if left <= 0:
            raise ValueError("nested deeper than %d" % MAX_DEPTH)
        if isinstance(value, dict):
            for key in value:
                _check_key(key)
        for child in value.values() if isinstance(value, dict) else value:
            _check(child, left - 1)
    elif isinstance(value, (int, float)):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError("expected numbers that JSON has, got %r" % value)
        if abs(value) >= 10**MAX_JSON_DIGITS and isinstance(value, int):
            raise ValueError("a number of more than %d digits" % MAX_JSON_DIGITS)
    elif value is not None:
        raise ValueError("expected plain data, got %s" % type(value).__name__)


def _check_key(key: t.Any) -> None:
    if not isinstance(key, str):
        raise ValueError("expected text as keys, got %s" % type(key).__name__)
    _check_text(key)
    if key.startswith("__"):
        # Ansible gives keys such as "__ansible_unsafe" a special meaning when it reads JSON.
        raise ValueError("expected no keys that start with two underscores, got %r" % clip(key, 80))


def _check_text(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # JSON can contain a lone surrogate, which cannot be printed.
        raise ValueError("expected valid Unicode, got %r" % clip(text, 80)) from None
