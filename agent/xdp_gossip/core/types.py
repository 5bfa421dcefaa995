# SPDX-License-Identifier: MIT
"""The values of the protocol: addresses, nodes, members, versions, documents.

All are immutable, and none uses a clock, a socket or a file.
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

#: The document that PekoNode's ``Publish`` and ``Read`` use.
DEFAULT_KEY = "default"

#: Longest node name and private data, in bytes of UTF-8. A short node record fits one datagram of the smallest MTU that
#: IPv6 guarantees (1,280 bytes); longer records travel over TCP.
MAX_NAME = 255
MAX_PRIVATE_DATA = 4096
MAX_KEY = 512
MAX_CONTENT_TYPE = 32
MAX_AUTHOR = 255
MAX_COMMENT = 1024
#: Most documents in a batch, and most bytes of all their keys: each document names all keys, and must fit a frame.
MAX_BATCH = 64
MAX_BATCH_KEYS = 4096
#: Most versions before its base that a document names.
MAX_ANCESTORS = 7
#: Content type by suffix of the key (docs/protocol.md, "Documents").
_TYPES = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".txt": "text"}
#: Longest time until a document expires, in seconds (ten years).
MAX_EXPIRES_IN = 10 * 366 * 86_400


@dataclass(frozen=True)
class Now:
    """One instant on both clocks: ``mono`` in seconds (never jumps), ``wall_ns`` in nanoseconds since the epoch.

    ``slept``: seconds for which the machine was suspended since its boot; ``mono`` stood still then.
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
        """Check and normalise an address. Raises ``ValueError``, also for a host name: gossip uses addresses."""
        # The module ipaddress would also accept a number or bytes.
        try:
            parsed = ipaddress.ip_address(ip if isinstance(ip, str) else "")
        except ValueError:
            raise ValueError(f"expected an IPv4 or IPv6 address, got {shown(ip)}") from None
        if getattr(parsed, "scope_id", None) is not None:
            # The wire has 16 bytes for an address, and the name of an interface means nothing on other hosts.
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
        """Build an address from 16 bytes (IPv4-mapped) and a port, as in the signed block. Raises ``ValueError``."""
        return _unpacked(packed, port)

    @functools.cached_property
    def packed(self) -> bytes:
        """The IP address as 16 bytes, IPv4 as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2)."""
        parsed = ipaddress.ip_address(self.ip)
        if parsed.version == 4:
            return bytes(10) + b"\xff\xff" + parsed.packed
        return parsed.packed

    @property
    def is_group(self) -> bool:
        """Whether it addresses many hosts (multicast, broadcast), so that no node can have it."""
        return self.ip == "255.255.255.255" or ipaddress.ip_address(self.ip).is_multicast

    @property
    def is_one_host(self) -> bool:
        """Whether it names one host. Groups do not, nor do 0.0.0.0 and ::, which Linux takes for the sender."""
        return not self.is_group and self.ip not in ("0.0.0.0", "::")

    @property
    def is_here(self) -> bool:
        """Whether it means the host that uses it (loopback, unspecified), so that no other host can reach it."""
        parsed = ipaddress.ip_address(self.ip)
        return parsed.is_loopback or parsed.is_unspecified

    def may_be_node(self, of: Address) -> bool:
        """Whether the node ``of`` can reach another node at this address.

        It applies this rule to every address it learns.
        """
        return not self.is_group and (not self.is_here or of.is_here)

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    def order(self) -> tuple[bytes, int]:
        """The sort key of addresses."""
        return (self.packed, self.port)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return self.order() < other.order()


@functools.lru_cache(maxsize=8192)
def _unpacked(packed: bytes, port: int) -> Address:
    """Unpack an address, cached: every packet names its origin, and unpacking it was half the cost of a packet."""
    return Address.of(str(ipaddress.IPv6Address(packed)), port)


@dataclass(frozen=True)
class Node:
    """A node in PekoNode's terms: where it listens, and what it says about itself.

    ``addr`` and ``port`` are its identity. ``name`` and ``private_data`` are attributes that it may change.
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
    """The state of a node in the view of one member."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"


#: States that ``NodeList.get`` and the inventory count as present.
PRESENT = frozenset({State.ALIVE, State.SUSPECT})


@dataclass(frozen=True)
class Record:
    """What a node says about itself beyond its address. It is spread when it changes; every heartbeat names its digest.

    ``stamp`` is (incarnation, sequence) at the time of the change. Of two records the one with the higher stamp holds.
    """

    name: str = ""
    private_data: str = ""
    agent_version: str = ""
    plane: str = ""
    stamp: tuple[int, int] = (0, 0)

    @functools.cached_property
    def digest(self) -> int:
        """64-bit digest over all fields except the stamp; never 0, which stands for "not known"."""
        digest = hashlib.blake2b(digest_size=8, person=b"xg-record")
        for text in (self.name, self.private_data, self.agent_version, self.plane):
            raw = text.encode()
            digest.update(len(raw).to_bytes(4, "big") + raw)
        return int.from_bytes(digest.digest(), "big") or 1


#: Problems that a node can have (docs/protocol.md, "Identity", "Reach" and "Time").
PROBLEMS = ("twin", "same_name", "short_datagrams", "unreached", "no_common_family", "clock")


@dataclass(frozen=True)
class Member:
    """A snapshot of a node as this member sees it. It does not change afterwards."""

    address: Address
    state: State
    incarnation: int
    sequence: int
    record: Record | None
    last_heard: float  # seconds ago
    digest: int  # documents digest it last advertised
    local: bool = False
    #: Its problems by stable names (docs/protocol.md, "Identity" and "Reach"); usually none.
    problems: tuple[str, ...] = ()
    #: Whether all documents in ``digest`` are on its disk.
    stored: bool = True
    #: The key slot that it signs with, as far as known in this run. None for the local node and on a wire without
    #: slots.
    key_slot: int | None = None

    @property
    def node(self) -> Node:
        """The member as a PekoNode node."""
        record = self.record or Record()
        return Node(self.address.ip, self.address.port, record.name, record.private_data)


_VERSION = re.compile(r"([0-9a-f]{16})@(.+)")


@dataclass(frozen=True, order=True)
class Version:
    """Version of a document: a hybrid logical clock reading (48 bits of ms, 16 bits of counter) and its author's node.

    Versions are totally ordered, so every member picks the same winner of two concurrent publishes (Kulkarni et al.
    2014, "Logical Physical Clocks").
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
        """Time of its publish in milliseconds since the epoch, by the publisher's (corrected) clock."""
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
    #: Expiry in milliseconds since the epoch, by the cluster's clock; 0: it never expires.
    expires: int = 0
    #: Keys of all documents written together with this one under one version, its own included; () for a single
    #: document.
    batch: tuple[str, ...] = ()
    #: The versions before ``base``, the latest first, at most ``MAX_ANCESTORS``. With ``base`` they tell a successor
    #: from a concurrent publish: if a member holds a version that is not among them, the author had not read that
    #: version.
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
        """64-bit hash of (key, version, content). The sum over all documents is the documents digest."""
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
        """The rank that decides between two documents of one key: the higher rank holds.

        The version comes first. The rest only matters if an origin lost its state and wrote one version twice: even
        then every member must pick the same document.
        """
        return (self.version, self.deleted, self.content_hash)

    def expired(self, wall_ms: int) -> bool:
        """Whether the document has expired at ``wall_ms``, the cluster's time in milliseconds since the epoch."""
        return 0 < self.expires <= wall_ms

    @property
    def ended(self) -> Document:
        """The tombstone that an expired document leaves. Every member computes the same one, without communication.

        Its version is the next one above. Every author of a document with an expiry, or of its successor, leaves this
        version free. The tombstone keeps the expiry, so that a member whose clock is corrected can tell that the
        document has not expired yet.
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
        """The ``ancestors`` of a version whose author has read this version."""
        return () if self.base is None else (self.base, *self.ancestors)[:MAX_ANCESTORS]

    def overtakes(self, held: Document, ours: bool) -> bool:
        """Whether this version replaces ``held`` although its author had not read ``held``.

        If ``held`` is older than every listed ancestor, the member cannot tell whether it had been read. It then counts
        as read, unless it is the node's own (``ours``), which no other node may have seen.
        """
        if held.version == self.base or held.version in self.ancestors:
            return False
        return ours or len(self.ancestors) < MAX_ANCESTORS or held.version > self.ancestors[-1]


@dataclass(frozen=True)
class Write:
    """A request to write one document or, with ``deleted``, its tombstone.

    ``expected``/``absent``: write only if that version / no document is held. ``expires_in``: seconds until the
    document expires; ``expires``: instead, the time of expiry as in ``Document``. ``content_type`` None: the type of
    the version held, otherwise the type by the key's suffix, otherwise by ``suffix`` (of the file that contained the
    value), otherwise raw. ``checked_as``: the type that the value was checked for, and the only one that it may get
    (None: any).
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
        """The content type that the document gets if ``held`` is the version held."""
        if self.content_type is not None:
            return self.content_type
        if self.deleted:
            return "raw"
        if held is not None and not held.deleted:
            return held.content_type
        by_key = _TYPES.get(posixpath.splitext(self.key)[1].lower())
        return by_key or _TYPES.get(self.suffix.lower(), "raw")

    def typed(self, held: Document | None) -> Write:
        """This write with an explicit content type. Raises :class:`TypeChanged` if it was checked for another type."""
        content_type = self.type_over(held)
        if self.checked_as not in (None, content_type):
            raise TypeChanged(self.key)
        return replace(self, content_type=content_type)


class TypeChanged(Exception):
    """The type of a document changed after its new value was checked. The caller must check the value again."""


@dataclass(frozen=True)
class Prepared:
    """One document of a publish that is checked but not committed yet.

    ``document``: what holds afterwards (None: nothing, as before). ``changed``: whether that is new. ``held``: the
    version that the publish saw; the publish is void once another version came between.
    """

    key: str
    document: Document | None
    changed: bool
    held: Document | None


def check_text(label: str, value: object, limit: int, least: int = 0) -> str:
    """Return ``value`` if it is text of ``least`` to ``limit`` bytes of UTF-8, otherwise raise ``ValueError``."""
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
    """Return ``key`` if it may name a document, otherwise raise ``ValueError`` that names the broken rule."""
    text = check_text("document key", key, MAX_KEY, least=1)
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        raise ValueError(f"document key: expected no control character, got {text!r}")
    if any(segment in ("", ".", "..") for segment in text.split("/")):
        raise ValueError(f"document key: expected segments between '/' that are not empty, '.' or '..', got {text!r}")
    return text
