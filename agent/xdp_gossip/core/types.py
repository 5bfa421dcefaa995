# SPDX-License-Identifier: MIT
"""Values that the whole protocol uses: addresses, nodes, members, versions, documents.

All are immutable; none touches a clock, a socket or a file.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import ipaddress
import posixpath
import re
from dataclasses import dataclass, field, replace

from .shown import shown

#: The document that PekoNode's ``Publish``/``Read`` use.
DEFAULT_KEY = "default"

#: Longest node name and private data, in bytes of UTF-8. A node record has to fit one datagram of the
#: smallest MTU that IPv6 guarantees (1,280 bytes) only when it is short; longer ones travel over TCP.
MAX_NAME = 255
MAX_PRIVATE_DATA = 4096
MAX_KEY = 512
MAX_CONTENT_TYPE = 32
MAX_AUTHOR = 255
MAX_COMMENT = 1024
#: Documents written together, and bytes of their keys in all: each of them names all, and has to fit a frame.
MAX_BATCH = 64
MAX_BATCH_KEYS = 4096
#: Versions before its base that a document names.
MAX_ANCESTORS = 7
#: What a suffix says of the content (docs/protocol.md, "Documents").
_TYPES = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".txt": "text"}
#: Longest time until a document expires, in seconds (ten years).
MAX_EXPIRES_IN = 10 * 366 * 86_400


@dataclass(frozen=True)
class Now:
    """One instant on both clocks: ``mono`` in seconds (never jumps), ``wall_ns`` in nanoseconds since the epoch.

    ``slept``: seconds for which the machine was suspended since it booted, in which ``mono`` stood still.
    """

    mono: float
    wall_ns: int
    slept: float = 0.0


@functools.total_ordering
@dataclass(frozen=True)
class Address:
    """An IP address and a port. ``ip`` is the canonical text form; IPv4-mapped IPv6 becomes IPv4."""

    ip: str
    port: int

    @classmethod
    def of(cls, ip: str, port: int) -> Address:
        """Check and normalise. Raises ``ValueError`` naming what is wrong (no host names: gossip uses addresses)."""
        # The library would take a number, and bytes, for an address.
        try:
            parsed = ipaddress.ip_address(ip if isinstance(ip, str) else "")
        except ValueError:
            raise ValueError(f"expected an IPv4 or IPv6 address, got {shown(ip)}") from None
        if getattr(parsed, "scope_id", None) is not None:
            # The wire has 16 bytes for an address: what an interface of this host is called says nothing elsewhere.
            raise ValueError(f"expected an IPv6 address without a zone, got {shown(ip)}")
        mapped = getattr(parsed, "ipv4_mapped", None)
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
            raise ValueError(f"expected a port from 1 to 65535, got {shown(port)}")
        return cls(str(mapped or parsed), port)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``198.18.0.11:8000`` or ``[fd00::1]:8000``. Raises ``ValueError``."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or len(port) > 20:
            raise ValueError(f"expected ADDRESS:PORT (an IPv6 address in brackets), got {shown(text)}")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError(f"expected an IPv6 address in brackets, got {shown(text)}")
        return cls.of(host, int(port))

    @classmethod
    def unpack(cls, packed: bytes, port: int) -> Address:
        """From 16 bytes (IPv4-mapped) and a port, as in the signed block. Raises ``ValueError``."""
        return _unpacked(packed, port)

    @functools.cached_property
    def packed(self) -> bytes:
        """16 bytes, IPv4 as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2)."""
        parsed = ipaddress.ip_address(self.ip)
        if parsed.version == 4:
            return bytes(10) + b"\xff\xff" + parsed.packed
        return parsed.packed

    @property
    def is_group(self) -> bool:
        """Whether it stands for many hosts (multicast, broadcast), so that no node can have it."""
        return self.ip == "255.255.255.255" or ipaddress.ip_address(self.ip).is_multicast

    @property
    def is_one_host(self) -> bool:
        """Whether it names one host, as neither groups do nor 0.0.0.0 and ::, which Linux takes for the sender."""
        return not self.is_group and self.ip not in ("0.0.0.0", "::")

    @property
    def is_here(self) -> bool:
        """Whether it means the very host that uses it (loopback, unspecified), so that no other one reaches it."""
        parsed = ipaddress.ip_address(self.ip)
        return parsed.is_loopback or parsed.is_unspecified

    def may_be_node(self, of: Address) -> bool:
        """Whether the node ``of`` can reach another one here; the rule for every address that it is told."""
        return not self.is_group and (not self.is_here or of.is_here)

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    def order(self) -> tuple[bytes, int]:
        """What addresses are sorted by."""
        return (self.packed, self.port)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return self.order() < other.order()


@functools.lru_cache(maxsize=8192)
def _unpacked(packed: bytes, port: int) -> Address:
    """Every packet names its origin: reading the same few addresses again and again was half the cost of one."""
    return Address.of(str(ipaddress.IPv6Address(packed)), port)


@dataclass(frozen=True)
class Node:
    """A node as PekoNode knows it: where it listens, and what it says of itself.

    ``addr`` and ``port`` are its identity; ``name`` and ``private_data`` are attributes it may change.
    """

    addr: str
    port: int
    name: str = ""
    private_data: str = ""

    def __post_init__(self) -> None:
        try:
            address = Address.of(self.addr, self.port)
        except ValueError as error:
            wrong = "port" if str(error).startswith("expected a port") else "addr"
            raise ValueError(f"{wrong}: {error}") from None
        object.__setattr__(self, "addr", address.ip)
        check_text("node name", self.name, MAX_NAME)
        check_text("node private_data", self.private_data, MAX_PRIVATE_DATA)

    @property
    def address(self) -> Address:
        """The node's identity."""
        return Address(self.addr, self.port)

    def __str__(self) -> str:
        """PekoNode's console form: ``{0.0.0.0 8000 A-server A}``."""
        return f"{{{self.addr} {self.port} {self.name} {self.private_data}}}"


class State(enum.Enum):
    """What one member holds another to be."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


#: States that ``NodeList.get`` and the inventory count as present.
PRESENT = frozenset({State.ALIVE, State.SUSPECT})


@dataclass(frozen=True)
class Record:
    """What a node says of itself beyond its address; spread when it changes, named by ``digest`` in every heartbeat.

    ``stamp`` is (incarnation, sequence) at the time of the change: of two records the higher stamp holds.
    """

    name: str = ""
    private_data: str = ""
    agent_version: str = ""
    plane: str = ""
    stamp: tuple[int, int] = (0, 0)

    @functools.cached_property
    def digest(self) -> int:
        """64 bits over all fields but the stamp; never 0, which stands for "not known"."""
        digest = hashlib.blake2b(digest_size=8, person=b"xg-record")
        for text in (self.name, self.private_data, self.agent_version, self.plane):
            raw = text.encode()
            digest.update(len(raw).to_bytes(4, "big") + raw)
        return int.from_bytes(digest.digest(), "big") or 1


#: What can be wrong with a node (docs/protocol.md, "Identity", "Reach" and "Time").
PROBLEMS = ("twin", "same_name", "short_datagrams", "unreached", "no_common_family", "clock")


@dataclass(frozen=True)
class Member:
    """A node as this member sees it, at the moment of asking (a snapshot: it does not change afterwards)."""

    address: Address
    state: State
    incarnation: int
    sequence: int
    record: Record | None
    last_heard: float  # seconds ago
    digest: int  # documents digest it last advertised
    local: bool = False
    #: What is wrong with it, by stable names (docs/protocol.md, "Identity" and "Reach"); mostly nothing.
    problems: tuple[str, ...] = ()
    #: Everything that ``digest`` stands for is on its disk.
    stored: bool = True
    #: The key slot that it signs with, as far as this run knows; not of the local node, nor on a wire without slots.
    key_slot: int | None = None

    @property
    def node(self) -> Node:
        """PekoNode's view of it."""
        record = self.record or Record()
        return Node(self.address.ip, self.address.port, record.name, record.private_data)


_VERSION = re.compile(r"([0-9a-f]{16})@(.+)")


@dataclass(frozen=True, order=True)
class Version:
    """Version of a document: a hybrid logical clock reading (48 bits ms, 16 bits counter) and who wrote it.

    Totally ordered, so of two concurrent publishes every member picks the same winner
    (Kulkarni et al. 2014, "Logical Physical Clocks").
    """

    hlc: int
    origin: Address

    def __str__(self) -> str:
        return f"{self.hlc:016x}@{self.origin}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """Inverse of ``str``. Raises ``ValueError``."""
        match = _VERSION.fullmatch(text) if isinstance(text, str) else None
        if not match:
            raise ValueError(f"expected a version such as 019a3c1e5b2f0000@198.18.0.11:8000, got {shown(text)}")
        return cls(int(match[1], 16), Address.parse(match[2]))

    @property
    def wall_ms(self) -> int:
        """Milliseconds since the epoch at which it was published, by the publisher's (corrected) clock."""
        return self.hlc >> 16


@dataclass(frozen=True)
class Document:
    """One version of one configuration document. ``deleted`` marks a tombstone (its value is empty)."""

    key: str
    version: Version
    value: bytes = field(repr=False, default=b"")
    content_type: str = "raw"
    author: str = ""
    comment: str = ""
    deleted: bool = False
    #: The version its author knew when writing it; None when the author knew of none.
    base: Version | None = None
    #: Milliseconds since the epoch, by the cluster's clock, from which on there is no such document; 0 for never.
    expires: int = 0
    #: Keys that were written together with this one, under one version, its own among them; () for one alone.
    batch: tuple[str, ...] = ()
    #: The versions before ``base``, the latest first, at most ``MAX_ANCESTORS``. With ``base`` they tell a successor
    #: from a concurrent publish: whoever holds a version that is not among them was overtaken without being read.
    ancestors: tuple[Version, ...] = ()

    @functools.cached_property
    def content_hash(self) -> bytes:
        """SHA-256 of the value, 32 bytes."""
        return hashlib.sha256(self.value).digest()

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of the value, as ``sha256sum`` prints it."""
        return f"sha256:{self.content_hash.hex()}"

    @property
    def size(self) -> int:
        """Bytes of the value."""
        return len(self.value)

    @functools.cached_property
    def state_hash(self) -> int:
        """64 bits standing for (key, version, content); the sum over all is the documents digest."""
        digest = hashlib.blake2b(digest_size=8, person=b"xg-document")
        for part in (
            self.key.encode(),
            str(self.version).encode(),
            self.content_hash,
            b"\1" if self.deleted else b"\0",
        ):
            digest.update(len(part).to_bytes(4, "big") + part)
        return int.from_bytes(digest.digest(), "big")

    @property
    def rank(self) -> tuple[Version, bool, bytes]:
        """What decides between two documents of one key: the higher rank holds.

        Version first. The rest only matters when an origin lost its state and wrote one version twice:
        even then every member must pick the same one.
        """
        return (self.version, self.deleted, self.content_hash)

    def expired(self, wall_ms: int) -> bool:
        """Whether the document is over at ``wall_ms``, the cluster's time."""
        return 0 < self.expires <= wall_ms

    @property
    def ended(self) -> Document:
        """The tombstone that an expired document leaves: the same on every member, which needs no word about it.

        Its version is the next above; whoever writes a document with an expiry, or after one, leaves that free.
        It keeps the expiry: a member whose clock is put right can tell that the document is not over yet.
        """
        version = Version(self.version.hlc + 1, self.version.origin)
        return Document(
            self.key,
            version,
            b"",
            self.content_type,
            self.author,
            "expired",
            True,
            self.version,
            self.expires,
            (),
            self.lineage,
        )

    @property
    def lineage(self) -> tuple[Version, ...]:
        """The ``ancestors`` of whatever is written next after this version was read."""
        return () if self.base is None else (self.base, *self.ancestors)[:MAX_ANCESTORS]

    def overtakes(self, held: Document, ours: bool) -> bool:
        """Whether this version takes the place of ``held`` although its author had not read that.

        If ``held`` is older than every listed ancestor, the member cannot tell whether the author had read it. It then
        counts as read, unless it is a version of this node (``ours``), which others may never have seen.
        """
        if held.version == self.base or held.version in self.ancestors:
            return False
        return ours or len(self.ancestors) < MAX_ANCESTORS or held.version > self.ancestors[-1]


@dataclass(frozen=True)
class Write:
    """One document to be written, or with ``deleted`` its tombstone.

    ``expected``/``absent``: only if that version / no document is held. ``expires_in``: seconds until it is over;
    ``expires``: the moment at which it is, as in ``Document``, for who gives no seconds.
    ``content_type`` None: that of the version held, else what the key's suffix says, else what ``suffix`` says (of the
    file that the value was in), else raw.
    ``checked_as``: the type that the value was checked for, and the only one that it may get (None: any).
    """

    key: str
    value: bytes = field(repr=False, default=b"")
    content_type: str | None = None
    expected: Version | None = None
    absent: bool = False
    expires_in: float | None = None
    deleted: bool = False
    suffix: str = ""
    expires: int = 0
    checked_as: str | None = None

    def type_over(self, held: Document | None) -> str:
        """The content type that the document gets when ``held`` is held."""
        if self.content_type is not None:
            return self.content_type
        if self.deleted:
            return "raw"
        if held is not None and not held.deleted:
            return held.content_type
        by_key = _TYPES.get(posixpath.splitext(self.key)[1].lower())
        return by_key or _TYPES.get(self.suffix.lower(), "raw")

    def typed(self, held: Document | None) -> Write:
        """This write with its content type said. Raises :class:`TypeChanged` when it was checked for another one."""
        content_type = self.type_over(held)
        if self.checked_as not in (None, content_type):
            raise TypeChanged(self.key)
        return replace(self, content_type=content_type)


class TypeChanged(Exception):
    """A document is of another type by now than the one that its new value was checked for: check it again."""


@dataclass(frozen=True)
class Prepared:
    """One document of a publish that is checked and has not happened yet.

    ``document`` is what holds after it (None: nothing, as before), ``changed`` whether that is news, ``held`` what the
    publish saw: it counts for nothing once another version came between.
    """

    key: str
    document: Document | None
    changed: bool
    held: Document | None


def check_text(label: str, value: object, limit: int, least: int = 0) -> str:
    """Return ``value`` when it is text of ``least`` to ``limit`` bytes of UTF-8, else raise ``ValueError``."""
    if not isinstance(value, str):
        raise ValueError(f"{label}: expected text, got {type(value).__name__}")
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise ValueError(f"{label}: expected valid Unicode text") from None
    if not least <= size <= limit:
        wanted = f"{least} to {limit}" if least else f"at most {limit}"
        raise ValueError(f"{label}: expected {wanted} bytes of UTF-8, got {size}")
    return value


def check_key(key: object) -> str:
    """Return ``key`` when it may name a document, else raise ``ValueError`` saying which rule it breaks."""
    text = check_text("document key", key, MAX_KEY, least=1)
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise ValueError(f"document key: expected no control character, got {text!r}")
    if any(segment in ("", ".", "..") for segment in text.split("/")):
        raise ValueError(f"document key: expected segments between '/' that are not empty, '.' or '..', got {text!r}")
    return text
