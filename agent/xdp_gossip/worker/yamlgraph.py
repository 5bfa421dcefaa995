# SPDX-License-Identifier: MIT
"""Finds what is wrong with a YAML document by its node graph, at a cost that grows with its text only.

Loading a document can cost any multiple of that: an alias in a merge key (``<<``) copies the entries that it names, and
each of ten such lines multiplies them by ten.
"""

from __future__ import annotations

import types
from typing import Any

import yaml

from ..core.shown import shown

#: Levels: the loader in C calls itself for each, and ends the process where the stack does.
MAX_LEVELS = 200
#: Entries that merge keys may add to the mappings of one document: who loads it makes them all.
MAX_MERGED = 1_000_000
#: Characters of one whole number. To read one costs the square of them; Python's own limit is the same.
_MAX_DIGITS = 4300

_TAG = "tag:yaml.org,2002:"
_MERGE, _VALUE, _STR, _INT = (f"{_TAG}{name}" for name in ("merge", "value", "str", "int"))
_LISTS, _MAPPINGS = (f"{_TAG}seq",), (f"{_TAG}map", f"{_TAG}set")
_PAIRS = (f"{_TAG}omap", f"{_TAG}pairs")

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check(text: str) -> None:
    """Raise ``yaml.YAMLError`` (mostly with a mark) unless ``text`` is one YAML document that a safe loader accepts.

    Also raises whatever constructing a scalar raises, and ``RecursionError`` beyond ``MAX_LEVELS`` levels. A key that
    occurs twice in a mapping is an error; a key that also occurs in a merged mapping is not.
    """
    level = 0
    for event in yaml.parse(text, Loader=_Loader):
        level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if level > MAX_LEVELS:
            raise RecursionError
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is not None:
            _Graph(loader).look(root)
    finally:
        loader.dispose()


class _Graph:
    """The nodes of one document. Each is visited once, however many aliases it has."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._entries: dict[int, int] = {}  # by id of a mapping: how many it has once it is merged
        self._seen: set[int] = set()
        self._merged = 0

    def look(self, node: Any) -> None:
        """Raise unless the loader could make something of ``node`` and of what is in it."""
        if id(node) in self._seen:
            return
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            self._mapping(node)
        elif isinstance(node, yaml.SequenceNode):
            self._sequence(node)
        else:
            self._made(node)

    def _made(self, node: Any) -> Any:
        """What the loader makes of a scalar, or of a collection that is tagged as something else: mostly an error."""
        if node.tag == _STR and isinstance(node, yaml.ScalarNode):
            return node.value
        if node.tag == _INT and len(node.value) > _MAX_DIGITS:
            raise _wrong(node, f"expected a whole number of at most {_MAX_DIGITS} characters")
        constructors = self._loader.yaml_constructors
        made = constructors.get(node.tag, constructors[None])(self._loader, node)
        if isinstance(made, types.GeneratorType):
            for _ in made:
                pass
        return made

    def _sequence(self, node: Any) -> None:
        if node.tag not in (*_LISTS, *_PAIRS):
            self._made(node)
        for item in node.value:
            if node.tag in _PAIRS and not (isinstance(item, yaml.MappingNode) and len(item.value) == 1):
                raise _wrong(item, "expected a mapping of one item")
            self.look(item)

    def _mapping(self, node: Any) -> None:
        if node.tag not in _MAPPINGS:
            self._made(node)
        keys: dict[Any, Any] = {}
        added = 0
        for key, value in node.value:
            if key.tag == _MERGE and isinstance(key, yaml.ScalarNode):
                added += self._merge(value)
                continue
            if not isinstance(key, yaml.ScalarNode):
                raise _wrong(key, "found unhashable key")
            name = key.value if key.tag == _VALUE else self._made(key)
            if name in keys:
                first = keys[name].start_mark.line + 1
                raise _wrong(key, f"the key {shown(name)} is there twice, first in line {first}")
            keys[name] = key
            self.look(value)
        self._merged += added
        if self._merged > MAX_MERGED:
            raise _wrong(node, f"merge keys (<<) make more than {MAX_MERGED} entries")
        self._entries[id(node)] = len(keys) + added

    def _merge(self, value: Any) -> int:
        """Number of entries that the value of a merge key adds."""
        parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
        added = 0
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                raise _wrong(part, f"expected a mapping for merging, but found {part.id}")
            self.look(part)
            added += self._entries.get(id(part), len(part.value))  # the latter when it merges itself
        return added


def _wrong(node: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
