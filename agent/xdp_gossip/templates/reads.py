# SPDX-License-Identifier: MIT
"""Records the documents and nodes that a rendering read, and checks whether a new rendering would read the same
data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..core.sealed import SEALED

if TYPE_CHECKING:
    from ..core.types import Document, Member


class Source(Protocol):
    """An object that provides documents and nodes, such as ``AsyncNodeList``."""

    def document(self, key: str) -> Document | None:
        """Return the document whose key is ``key``."""

    def documents(self, prefix: str = "") -> Sequence[Document]:
        """Return all documents whose key begins with ``prefix``, ordered by key."""

    def members(self) -> Sequence[Member]:
        """All nodes, the local one first."""

    def local(self) -> Member:
        """The local node."""


class Frozen:
    """A snapshot of all documents and nodes of a source."""

    def __init__(self, source: Source) -> None:
        self._documents = {document.key: document for document in source.documents()}
        self._members = source.members()
        self._local = source.local()

    def document(self, key: str) -> Document | None:
        """Return the snapshot's document whose key is ``key``."""
        return self._documents.get(key)

    def documents(self, prefix: str = "") -> Sequence[Document]:
        """Return the snapshot's documents whose key begins with ``prefix``."""
        return [document for key, document in self._documents.items() if key.startswith(prefix)]

    def members(self) -> Sequence[Member]:
        """The nodes in the snapshot."""
        return self._members

    def local(self) -> Member:
        """The local node in the snapshot."""
        return self._local


class Reads:
    """The data that one rendering read: versions of documents (None if missing), documents below prefixes, and nodes.

    ``source`` provides the data. If ``frozen`` is true, all reads come from one snapshot of ``source``.
    """

    def __init__(self, source: Source | None = None, frozen: bool = False) -> None:
        self.documents: dict[str, str | None] = {}
        self.prefixes: dict[str, tuple[tuple[str, str], ...]] = {}
        self.nodes: list[dict[str, Any]] | None = None
        self.node: dict[str, Any] | None = None
        #: Whether the rendering read the same input twice and got different values. The output then mixes old and new
        #: data.
        self.mixed = False
        self._source: Source | None = Frozen(source) if frozen and source is not None else source

    def answer(self, what: str, name: str = "") -> Any:
        """Answer a request of the worker process for documents or nodes, and record the data that the answer contains.
        Raises ``ValueError`` for an unknown request.
        """
        source = self._source
        assert source is not None
        if what == "document":
            held = source.document(name)
            self._note(name, str(held.version) if held else None)
            return [held.value, held.content_type == SEALED] if held else None
        if what == "documents":
            found = source.documents(name)
            listing = tuple((document.key, str(document.version)) for document in found)
            self.mixed = self.mixed or self.prefixes.get(name, listing) != listing
            self.prefixes[name] = listing
            for key, version in listing:
                self._note(key, version)
            return [
                [document.key, str(document.version), document.value, document.content_type == SEALED]
                for document in found
            ]
        if what == "nodes":
            self.nodes = node_values(source)
            return self.nodes
        if what == "node":
            self.node = local_value(source)
            return self.node
        raise ValueError(what)

    def _note(self, key: str, version: str | None) -> None:
        self.mixed = self.mixed or self.documents.get(key, version) != version
        self.documents[key] = version

    def close(self) -> None:
        """Stop recording and release the snapshot."""
        self._source = None

    def uses(self, key: str) -> bool:
        """Whether the rendering read the document ``key``, or all documents below a prefix of ``key``."""
        return key in self.documents or any(key.startswith(prefix) for prefix in self.prefixes)

    def still_true(self, source: Source) -> bool:
        """Whether a new rendering would read the same data from ``source``."""
        return (
            not self.mixed
            and all(_version(source, key) == version for key, version in self.documents.items())
            and all(_listing(source, prefix) == listing for prefix, listing in self.prefixes.items())
            and (self.nodes is None or self.nodes == node_values(source))
            and (self.node is None or self.node == local_value(source))
        )


def _version(source: Source, key: str) -> str | None:
    held = source.document(key)
    return str(held.version) if held else None


def _listing(source: Source, prefix: str) -> tuple[tuple[str, str], ...]:
    return tuple((document.key, str(document.version)) for document in source.documents(prefix))


def node_values(source: Source) -> list[dict[str, Any]]:
    """Return the present members in the form that templates receive, in an order that is the same on every member.

    A configured seed from which no message has arrived yet is left out, because only its address is known, and not its
    name.
    """
    found = [_node(member) for member in source.members() if member.local or member.record is not None]
    return sorted(found, key=lambda node: (node["name"], node["addr"], node["port"]))


def local_value(source: Source) -> dict[str, Any]:
    """Return the local node in the form that templates receive."""
    return _node(source.local())


def _node(member: Member) -> dict[str, Any]:
    node = member.node
    return {
        "name": node.name,
        "addr": node.addr,
        "port": node.port,
        "private_data": node.private_data,
        "state": member.state.value,
    }
