# SPDX-License-Identifier: MIT
"""The data classes of the protocol: addresses, nodes, members, versions, documents.

All classes in this module are immutable, and none uses a clock, a socket or a file.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import ipaddress
import posixpath
import re
from dataclasses import dataclass, field, replace

from .sealed import SEALED, Envelope, parse
from .shown import shown
from .signatures import MAX_ANCESTORS as MAX_ANCESTORS
from .signatures import Signature

#: The key of the document that PekoNode's calls ``Publish`` and ``Read`` use.
DEFAULT_KEY = "default"

#: Maximum length of a node's name and of its private data, in bytes of UTF-8. A record with a short name and short
#: private data fits one datagram at IPv6's minimum MTU (1,280 bytes). A longer record travels over TCP.
MAX_NAME = 255
MAX_PRIVATE_DATA = 4096
#: Maximum length of the name of a zone, in bytes of UTF-8.
MAX_ZONE = 64
#: Maximum number of keys that a node has at one time.
MAX_KEYS = 8
MAX_KEY = 512
MAX_CONTENT_TYPE = 32
MAX_AUTHOR = 255
MAX_COMMENT = 1024
#: Maximum number of documents in a batch, and maximum bytes of all keys of a batch together. Each document of a batch
#: lists all keys of the batch, and must fit a frame.
MAX_BATCH = 64
MAX_BATCH_KEYS = 4096
#: The default content type of a document, by the suffix of its key (docs/protocol.md, "Documents").
_TYPES = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".txt": "text"}
#: Maximum number of seconds until a document expires (ten years).
MAX_EXPIRES_IN = 10 * 366 * 86_400


@dataclass(frozen=True)
class Now:
    """One point in time on two clocks, ``mono`` (monotonic seconds) and ``wall_ns`` (nanoseconds since the epoch).

    ``slept``: total seconds for which the machine was suspended since its boot. ``mono`` does not include the time of
    suspends.
    """

    mono: float
    wall_ns: int
    slept: float = 0.0


@functools.total_ordering
@dataclass(frozen=True)
class Address:
    """An IP address and a port. ``ip`` is the address in canonical text form, with an IPv4-mapped address as IPv4."""

    ip: str
    port: int

    @classmethod
    def of(cls, ip: str, port: int) -> Address:
        """Check and normalise an address.

        Raises ``ValueError``, also for a host name, because the method resolves no names.
        """
        # ``ipaddress.ip_address`` would also accept a number or bytes.
        try:
            parsed = ipaddress.ip_address(ip if isinstance(ip, str) else "")
        except ValueError:
            raise ValueError(f"expected an IPv4 or IPv6 address, got {shown(ip)}") from None
        if getattr(parsed, "scope_id", None) is not None:
            # An address on the wire has 16 bytes and no zone, because a zone is an interface name, and is valid on one
            # host only.
            raise ValueError(f"expected an IPv6 address without a zone, got {shown(ip)}")
        mapped = getattr(parsed, "ipv4_mapped", None)
        if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
            raise ValueError(f"expected a port from 1 to 65535, got {shown(port)}")
        return cls(str(mapped or parsed), port)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Parse a text such as ``198.18.0.11:8000`` or ``[fd00::1]:8000``. Raises ``ValueError``."""
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
        """Build an address from 16 bytes (IPv4 as IPv4-mapped) and a port, as in a packet. Raises ``ValueError``."""
        return _unpacked(packed, port)

    @functools.cached_property
    def packed(self) -> bytes:
        """The IP address as 16 bytes, with IPv4 as IPv4-mapped IPv6 (RFC 4291, 2.5.5.2)."""
        parsed = ipaddress.ip_address(self.ip)
        if parsed.version == 4:
            return bytes(10) + b"\xff\xff" + parsed.packed
        return parsed.packed

    @property
    def is_group(self) -> bool:
        """Whether the address stands for many hosts (multicast, broadcast), so that no node can have it."""
        return self.ip == "255.255.255.255" or ipaddress.ip_address(self.ip).is_multicast

    @property
    def is_one_host(self) -> bool:
        """Whether the address stands for one host: it is no group address, and neither 0.0.0.0 nor ::."""
        return not self.is_group and self.ip not in ("0.0.0.0", "::")

    @property
    def is_here(self) -> bool:
        """Whether the address always means the local host (loopback, unspecified), so that no other host can use it."""
        parsed = ipaddress.ip_address(self.ip)
        return parsed.is_loopback or parsed.is_unspecified

    def may_be_node(self, of: Address) -> bool:
        """Whether the node ``of`` can reach another node at this address.

        A node applies this rule to every node address in a received packet.
        """
        return not self.is_group and (not self.is_here or of.is_here)

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"

    def order(self) -> tuple[bytes, int]:
        """The key by which addresses are sorted."""
        return (self.packed, self.port)

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Address):
            return NotImplemented
        return self.order() < other.order()


@functools.lru_cache(maxsize=8192)
def _unpacked(packed: bytes, port: int) -> Address:
    """Unpack an address. The function caches its results, because every packet contains the address of its origin.

    Without the cache, this function took half the processing time of a packet.
    """
    return Address.of(str(ipaddress.IPv6Address(packed)), port)


@dataclass(frozen=True)
class Node:
    """A node as PekoNode describes it.

    ``addr`` and ``port``: the address on which the node listens, which identifies the node. ``name`` and
    ``private_data``: attributes that the node may change.
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
        """The address and the port that identify the node."""
        return Address(self.addr, self.port)

    def __str__(self) -> str:
        """PekoNode's console form: ``{0.0.0.0 8000 A-server A}``."""
        return f"{{{self.addr} {self.port} {self.name} {self.private_data}}}"


class State(enum.Enum):
    """The state of a node in the view of one member.

    ``AGENT_DOWN``: the host of the node answers through its data plane, but the node's agent does not run.
    """

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    LEFT = "left"
    AGENT_DOWN = "agent_down"


class EdgeState(enum.IntEnum):
    """What an observer thinks of one of its subjects."""

    OK = 0
    FAILED = 1
    AGENT_DOWN = 2


#: States that ``NodeList.get`` and the inventory count as present.
PRESENT = frozenset({State.ALIVE, State.SUSPECT})


@dataclass(frozen=True)
class Record:
    """A node's description of itself: name, private data, agent version, mode, zone, signers, sealing key.

    A node spreads its record after each change. Every heartbeat has the digest of its origin's record. ``plane``: the
    mode. The pair ``stamp`` is the node's incarnation and sequence at the last change; a record with a higher stamp
    replaces a record with a lower stamp. ``signers``: 64-bit digest of the signers that the node accepts; 0 if the node
    has none. ``keys``: fingerprint (64 bits) and state of each of the node's keys, the least fingerprint first.
    ``sealing``: fingerprint of the key with which the node opens sealed documents; empty if it has none.
    """

    name: str = ""
    private_data: str = ""
    agent_version: str = ""
    plane: str = ""
    stamp: tuple[int, int] = (0, 0)
    zone: str = ""
    signers: int = 0
    keys: tuple[tuple[int, str], ...] = ()
    sealing: bytes = b""

    @functools.cached_property
    def digest(self) -> int:
        """64-bit digest over all fields except the stamp. The digest is never 0, because 0 means an unknown record."""
        digest = hashlib.blake2b(digest_size=8, person=b"xg-record")
        keys = " ".join(f"{fingerprint:016x} {state}" for fingerprint, state in self.keys)
        # A record has the digest that members compute that do not know the fields which were added later.
        later = [self.zone, f"{self.signers:016x}" if self.signers else "", keys, self.sealing.hex()]
        while later and not later[-1]:
            later.pop()
        for text in (self.name, self.private_data, self.agent_version, self.plane, *later):
            raw = text.encode()
            digest.update(len(raw).to_bytes(4, "big") + raw)
        return int.from_bytes(digest.digest(), "big") or 1


#: The names of all problems that a node can have (docs/protocol.md, "Identity", "Reach" and "Time").
PROBLEMS = ("twin", "same_name", "short_datagrams", "unreached", "no_common_family", "clock")


@dataclass(frozen=True)
class Member:
    """An immutable snapshot of a node in this member's view."""

    address: Address
    state: State
    incarnation: int
    sequence: int
    record: Record | None
    last_heard: float  # Seconds since the node was last heard.
    digest: int  # Documents digest that the node last advertised.
    local: bool = False
    #: Names of the node's problems (docs/protocol.md, "Identity" and "Reach"); usually empty.
    problems: tuple[str, ...] = ()
    #: Whether all documents in ``digest`` are on the node's disk.
    stored: bool = True
    #: The id of the key that signed the node's newest packet. None for the local node, on a wire without key ids, and
    #: before the first packet of the node in this run.
    key_id: int | None = None

    @property
    def node(self) -> Node:
        """The member as a PekoNode node."""
        record = self.record or Record()
        return Node(self.address.ip, self.address.port, record.name, record.private_data)

    @property
    def zone(self) -> str:
        """The zone of the node; "" if the node has no zone or its record is unknown."""
        return self.record.zone if self.record else ""


_VERSION = re.compile(r"([0-9a-f]{16})@(.+)")


@dataclass(frozen=True, order=True)
class Version:
    """Version of a document: its reading of a hybrid logical clock (48 bits ms, 16 bits counter), and its author.

    Versions are totally ordered, so every member picks the same winner of two concurrent publishes (Kulkarni et al.
    2014, "Logical Physical Clocks").
    """

    hlc: int
    origin: Address

    def __str__(self) -> str:
        return f"{self.hlc:016x}@{self.origin}"

    @classmethod
    def parse(cls, text: str) -> Version:
        """Parse the text that ``str`` returns for a version. Raises ``ValueError``."""
        match = _VERSION.fullmatch(text) if isinstance(text, str) else None
        if not match:
            raise ValueError(f"expected a version such as 019a3c1e5b2f0000@198.18.0.11:8000, got {shown(text)}")
        return cls(int(match[1], 16), Address.parse(match[2]))

    @property
    def wall_ms(self) -> int:
        """Time of the publish in milliseconds since the epoch, by the author's estimate of the cluster's time."""
        return self.hlc >> 16


@dataclass(frozen=True)
class Document:
    """One version of one configuration document. ``deleted``: the version is a tombstone, and its value is empty."""

    key: str
    version: Version
    value: bytes = field(repr=False, default=b"")
    content_type: str = "raw"
    author: str = ""
    comment: str = ""
    deleted: bool = False
    #: The version that the author had read before writing this version; None if the author had read no version.
    base: Version | None = None
    #: Time of expiry in milliseconds since the epoch, by the cluster's clock; 0: the document never expires.
    expires: int = 0
    #: Keys of all documents that were written together under this version, including ``key``; () for a single document.
    batch: tuple[str, ...] = ()
    #: The versions before ``base``, the latest first, at most ``MAX_ANCESTORS``. A member uses ``base`` and
    #: ``ancestors`` to detect a concurrent publish: if neither contains the member's current version, the author of
    #: this version had not read the member's version.
    ancestors: tuple[Version, ...] = ()
    #: The signature, which covers all fields; None for a document that nobody signed.
    signature: Signature | None = field(repr=False, default=None)

    @functools.cached_property
    def content_hash(self) -> bytes:
        """SHA-256 of the value, 32 bytes."""
        return hashlib.sha256(self.value).digest()

    @property
    def sealed(self) -> Envelope | str | None:
        """The envelope of a sealed document; the reason, as text, if its value is not one; None for other documents.

        Parsed anew each time: with many recipients, a parsed envelope takes more than twice the memory of the value.
        """
        if self.content_type != SEALED or self.deleted:
            return None
        try:
            return parse(self.value)
        except ValueError as error:
            return str(error)

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of the value, as ``sha256sum`` prints it."""
        return f"sha256:{self.content_hash.hex()}"

    @property
    def size(self) -> int:
        """Length of the value in bytes."""
        return len(self.value)

    @functools.cached_property
    def state_hash(self) -> int:
        """64-bit hash of (key, version, content). The documents digest is the sum of these hashes."""
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
        """The rank of the document among documents of the same key: the document with the highest rank wins.

        The version comes first. The deleted flag and the content hash matter only if a node lost its state and then
        used the same version for two documents. Even if one version was used for two documents, every member must pick
        the same document.
        """
        return (self.version, self.deleted, self.content_hash)

    def expired(self, wall_ms: int) -> bool:
        """Whether the document has expired at ``wall_ms``, the cluster's time in milliseconds since the epoch."""
        return 0 < self.expires <= wall_ms

    @property
    def ended(self) -> Document:
        """The tombstone that replaces the document when it expires. Every member computes the same tombstone by itself.

        The clock reading in the tombstone's version is the document's clock reading plus one. No author uses the
        tombstone's version for a document, because the clock reading of a new version is at least two above the reading
        of the version that it replaces. The tombstone also has the document's time of expiry. If the clock of a member
        is corrected later, the member can then detect that the document has not expired yet.
        """
        version = Version(self.version.hlc + 1, self.version.origin)
        signed = self.signature is not None
        return Document(
            self.key,
            version,
            b"",
            self.content_type,
            self.author,
            self.comment if signed else "expired",  # the comment is part of the signed statement
            True,
            self.version,
            self.expires,
            (),
            self.lineage,
            self.signature.outliving(self) if self.signature is not None else None,
        )

    @property
    def lineage(self) -> tuple[Version, ...]:
        """The value of ``ancestors`` in a new version whose author has read this version."""
        return () if self.base is None else (self.base, *self.ancestors)[:MAX_ANCESTORS]

    def overtakes(self, held: Document, ours: bool) -> bool:
        """Whether this version replaces the version ``held`` although the author of this version had not read ``held``.

        If ``held`` is older than every listed ancestor, the member cannot tell whether the author had read ``held``. A
        version ``held`` that is older than all ancestors counts as read, unless this node published ``held``
        (``ours``), because other nodes may not have received ``held``.
        """
        if held.version == self.base or held.version in self.ancestors:
            return False
        return ours or len(self.ancestors) < MAX_ANCESTORS or held.version > self.ancestors[-1]


@dataclass(frozen=True)
class Signed:
    """The part of a signed write that the signer alone decides.

    ``signed_at``: microseconds since the epoch. ``read``: the versions that the signer had read; see
    :class:`.signatures.Part`. ``blob``: see :class:`.signatures.Signature`. All writes of a publish have the same
    ``signed_at`` and ``blob``.
    """

    signed_at: int
    read: tuple[Version, ...]
    blob: bytes = field(repr=False)


@dataclass(frozen=True)
class Write:
    """A request to write one version of a document. If ``deleted`` is True, the version is a tombstone.

    ``expected``: write only if the current version of the document on the node is ``expected``. ``absent``: write only
    if the node has no such document. ``expires_in``: seconds until the document expires. ``expires``: the time of
    expiry, as in ``Document``, instead of ``expires_in``. If ``content_type`` is None, the document gets the first
    known type of these: the type of the current version, the type by the key's suffix, the type by ``suffix`` (the
    suffix of the file with the value), raw.
    ``checked_as``: the content type for which the value was checked; the write fails if the document would get a
    different type. If ``checked_as`` is None, the document may get any type. ``signed``: the signature, and what the
    statement says beyond the other fields; None for a write without a signature.
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
    signed: Signed | None = None

    def type_over(self, held: Document | None) -> str:
        """The content type that the document gets from this write.

        ``held``: the document's current version, or None.
        """
        if self.content_type is not None:
            return self.content_type
        if self.deleted:
            return "raw"
        if held is not None and not held.deleted:
            return held.content_type
        by_key = _TYPES.get(posixpath.splitext(self.key)[1].lower())
        return by_key or _TYPES.get(self.suffix.lower(), "raw")

    def typed(self, held: Document | None) -> Write:
        """A copy of this write with an explicit content type.

        Raises :class:`TypeChanged` if the content type is not ``checked_as``.
        """
        content_type = self.type_over(held)
        if self.checked_as not in (None, content_type):
            raise TypeChanged(self.key)
        return replace(self, content_type=content_type)


class TypeChanged(Exception):
    """Raised if a new value was checked for one content type, but its document would now get another content type.

    The value must be checked again.
    """


@dataclass(frozen=True)
class Prepared:
    """One document of a publish that is prepared but not committed yet.

    ``document``: the current version after the commit; None if the document exists neither before nor after the commit.
    ``changed``: whether the commit changes the document. ``held``: the current version when the publish was prepared.
    If another version replaces ``held`` before the commit, the commit fails.
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


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: An empty segment of a key, "." or "..", between two "/" or at an end of the key.
_WRONG_SEGMENT = re.compile(r"(?:\A|/)\.{0,2}(?:/|\Z)")


def check_key(key: object) -> str:
    """Return ``key`` if it is a valid document key, otherwise raise ``ValueError`` with the rule that it breaks."""
    text = check_text("document key", key, MAX_KEY, least=1)
    if _CONTROL.search(text):
        raise ValueError(f"document key: expected no control character, got {text!r}")
    if _WRONG_SEGMENT.search(text):
        raise ValueError(f"document key: expected segments between '/' that are not empty, '.' or '..', got {text!r}")
    return text


def is_key_prefix(value: object) -> bool:
    """Whether a document key can begin with ``value``: ``value`` is a key, or becomes one with a letter behind it."""
    if not isinstance(value, str) or not value:
        return False
    for key in (f"{value}x", value):
        try:
            check_key(key)
            return True
        except ValueError:
            continue
    return False
