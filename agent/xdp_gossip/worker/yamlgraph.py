# SPDX-License-Identifier: MIT
"""Checks a YAML document by its node graph, without loading it. The time of the check is proportional to the length of
the document.

Loading the document can take much longer: an alias in a merge key (``<<``) copies the entries of a mapping, so a line
with ten such aliases multiplies the number of entries by ten, and each further line multiplies it again.
"""

from __future__ import annotations

import types
from typing import Any

import yaml

from ..core.shown import shown

#: Maximum depth of nesting. The loader in C recurses once for each level, and a stack overflow would kill the process.
MAX_LEVELS = 200
#: Maximum number of entries that merge keys may add to the mappings of one document. A loader would create all entries
#: that merge keys add.
MAX_MERGED = 1_000_000
#: Maximum characters of a whole number, the same as Python's own limit. The time to parse a number grows with the
#: square of its length.
_MAX_DIGITS = 4300

_TAG = "tag:yaml.org,2002:"
_MERGE, _VALUE, _STR, _INT = (f"{_TAG}{name}" for name in ("merge", "value", "str", "int"))
_LISTS, _MAPPINGS = (f"{_TAG}seq",), (f"{_TAG}map", f"{_TAG}set")
_PAIRS = (f"{_TAG}omap", f"{_TAG}pairs")

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check(text: str) -> None:
    """Check that ``text`` is one YAML document that a safe loader accepts. Raises ``yaml.YAMLError``.

    The error usually has an attribute ``problem_mark`` with the position. The function also raises ``RecursionError``
    if collections are nested more than ``MAX_LEVELS`` deep, and passes on any error from the construction of a scalar.
    A duplicate key in a mapping is an error. A mapping may override a key of a mapping that it merges (``<<``).
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
    """Walks the nodes of one document. A node with several aliases is visited only once."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        # Id of a mapping -> number of its entries, including entries that merge keys add.
        self._entries: dict[int, int] = {}
        self._seen: set[int] = set()
        self._merged = 0

    def look(self, node: Any) -> None:
        """Check ``node`` and its child nodes. Raises the error that a safe loader would raise for an invalid node."""
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
        """Construct the value of a scalar.

        A collection with the tag of another type usually raises an error.
        """
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
        """Return the number of entries that ``value``, the value of a merge key, adds to its mapping."""
        parts = value.value if isinstance(value, yaml.SequenceNode) else [value]
        added = 0
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                raise _wrong(part, f"expected a mapping for merging, but found {part.id}")
            self.look(part)
            # If a mapping merges itself, ``_entries`` does not contain the mapping yet.
            added += self._entries.get(id(part), len(part.value))
        return added


def _wrong(node: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
