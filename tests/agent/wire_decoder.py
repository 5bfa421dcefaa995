# SPDX-License-Identifier: MIT
"""A decoder of native packets, written from docs/wire.md alone.

It shares no code with the implementation and was not tried on its packets, so it shows whether that page is enough to
write a program that reads them. A name of a field is the page's, with underscores for spaces. Every error is a
`ValueError` that says where it is, what is there and what was expected.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import crypto_shorthash_siphashx24

MAGIC = 0x5847
WIRE_VERSION = 2
HEADER = struct.Struct(">HBB4sBBHIQ16sQQQ16sBBBB4s")
SIGNED_END = 64  # bytes 0-63 are signed, and the associated data of the body
RELAY_END = 84  # from here to the end all is signed again
AEAD_TAG = 16

TYPES = {
    1: "heartbeat",
    2: "swap request",
    3: "swap response",
    4: "metadata",
    5: "leave",
    6: "node record",
    7: "probe",
    8: "edge probe",
    9: "edge acknowledgement",
    10: "alert",
}
WITHOUT_BODY = (1, 5, 8, 9)

INTEGERS = {"u7": 7, "u8": 8, "u32": 32, "u64": 64}
STATES = ("alive", "suspect", "dead", "left", "agent_down")
KEY_STATES = ("staged", "active", "retiring")
EDGE_STATES = ("sound", "failed", "agent_down")

# A field is "name:type"; a type may be [x], an array, or x?, x or nil; * marks what may be left off the end.
STRUCTURES = {
    "sighting": "address:address incarnation:u32 sequence:u64",
    "member": "address:address incarnation:u32 sequence:u64 state:state age_in_ms:u64"
    " record_digest:u64 documents_digest:u64",
    "entry": "key:key version:version deleted:bool content_hash:hash size:u64",
    # The page does not name the two fields of the stamp.
    "stamp": "incarnation:u32 sequence:u64",
    "record": "name:text private_data:text agent_version:text data_plane:text stamp:stamp zone:text* signers:u64*"
    " keys:[held_key]* sealing:bytes*",
    "held_key": "fingerprint:u64 state:key_state",
    "document": "key:key version:version value:bytes content_type:text author:text comment:text deleted:bool"
    " base:version? expires:u64* batch:[key]* ancestors:[version]* signature:signature?*",
    "signature": "blob:bytes batch:[signed_key] part:part?",
    "part": "key:key deleted:bool content_type:text size:u64 content_hash:bytes expires:u64 read:[version]",
    "alert": "subject:address incarnation:u32 state:edge_state",
    "file": "template:text path:text state:text since:u64 error:text",
    # The page has these two without a name, inside of a message.
    "signed_key": "key:key hash:hash",
    "want": "key:key version:version offset:u64",
    "addressed_record": "address:address record:record",
}

# tag: name, fields, the packet types that may carry it
MESSAGES = {
    1: ("SyncRequest", "nonce:u64 members_digest:u64 overdue:[sighting]", (2,)),
    2: (
        "SyncResponse",
        "nonce:u64 members:[member] want_members:bool entries:[entry] entries_complete:bool buckets:[u32]"
        " member_buckets:[u32]* nodes:u32*",
        (3,),
    ),
    3: ("MemberList", "members:[member] last:bool* unknown:[u64]*", (3,)),
    4: ("ListRequest", "buckets:[u8] known:[u64]*", (2,)),
    5: ("ListResponse", "entries:[entry] finished:[u8] unknown:[u64]?*", (3,)),
    6: ("FetchRequest", "wants:[want]", (2,)),
    7: ("Documents", "documents:[document]", (3, 4)),
    8: ("Chunk", "head:document size:u64 content_hash:hash offset:u64 data:bytes", (3,)),
    9: ("NotHere", "keys:[key]", (3,)),
    10: ("Announce", "entries:[entry]", (3, 4)),
    11: ("RecordsRequest", "addresses:[address]", (2,)),
    12: ("Records", "records:[addressed_record]", (3,)),
    13: ("RecordRumor", "record:record", (6,)),
    14: ("Ping", "nonce:u64 target:address incarnation:u32 suspect:bool padding:bytes", (7,)),
    15: ("Ack", "nonce:u64", (7,)),
    16: ("PingRequest", "nonce:u64 target:address incarnation:u32", (7,)),
    17: ("IndirectAck", "nonce:u64 sighting:sighting", (7,)),
    18: ("Query", "nonce:u64 key:key", (7,)),
    19: ("Answer", "nonce:u64 key:key version:version? content_hash:bytes stored:bool", (7,)),
    20: ("AppliedQuery", "nonce:u64 key:key", (7,)),
    21: ("AppliedAnswer", "nonce:u64 key:key state:text version:version? error:text", (7,)),
    22: ("FilesQuery", "nonce:u64", (7,)),
    23: ("FilesAnswer", "nonce:u64 templates:u32 troubled:u32 files:[file]", (7,)),
    24: ("Alerts", "alerts:[alert]", (10,)),
    25: ("Removed", "incarnation:u32", (7,)),
    26: ("NodeListRequest", "buckets:[u7] known:[u64]", (2,)),
}


@dataclass(frozen=True)
class Packet:
    """A packet that was checked and opened; `message` is None where its type has no body."""

    magic: int
    version: int
    type: int
    type_name: str
    cluster: bytes
    key_id: int
    flags: int
    origin: str
    incarnation: int
    sequence: int
    wall_time: int
    documents_digest: int
    record_digest: int
    mac: bytes
    ttl: int
    hops: int
    fan_out: int
    reserved: int
    salt: bytes
    message: str | None
    fields: dict[str, Any]

    @property
    def paused(self) -> bool:
        """Whether the origin is paused, so that its packets are no sign of life."""
        return bool(self.flags & 1)

    @property
    def not_all_on_disk(self) -> bool:
        """Whether not all that the origin's digest stands for is on its disk."""
        return bool(self.flags & 2)


class Decoder:
    """Checks and opens the packets of one cluster with its secrets."""

    def __init__(self, cluster: str, secrets: Iterable[str]) -> None:
        """Derive the keys and the key id of each secret from it and the cluster's name."""
        self.cluster = hashlib.blake2s(cluster.encode(), digest_size=4, person=b"xg-clust").digest()
        salt = b"xdp-gossip/2 " + cluster.encode()
        self._keys: dict[int, tuple[bytes, bytes]] = {}
        for secret in secrets:
            material = _material(secret, salt)
            key_id = _derive(material, salt, b"key fingerprint", 8)[0]
            self._keys[key_id] = (_derive(material, salt, b"packet mac", 16), _derive(material, salt, b"body", 32))

    def decode(self, packet: bytes) -> Packet:
        """Return what a packet says; raise ValueError where it is not as the page says."""
        if len(packet) < HEADER.size:
            raise ValueError(f"packet: {len(packet)} bytes, expected at least {HEADER.size}")
        (magic, version, kind, cluster, key_id, flags, port, incarnation, sequence, address, wall_time, documents,
         record, mac, ttl, hops, fan_out, reserved, salt) = HEADER.unpack_from(packet)  # fmt: skip
        if magic != MAGIC:
            raise ValueError(f"magic, bytes 0-1: {magic:#06x}, expected {MAGIC:#06x}")
        if version != WIRE_VERSION:
            raise ValueError(f"wire version, byte 2: {version}, expected {WIRE_VERSION}")
        if cluster != self.cluster:
            raise ValueError(f"cluster, bytes 4-7: {cluster.hex()}, expected {self.cluster.hex()}")
        if kind not in TYPES:
            raise ValueError(f"type, byte 3: {kind}, expected 1 to {max(TYPES)}")
        if kind in WITHOUT_BODY and len(packet) != HEADER.size:
            raise ValueError(f"{TYPES[kind]}: {len(packet)} bytes, expected {HEADER.size}, as it has no body")
        if kind not in WITHOUT_BODY and len(packet) <= HEADER.size + AEAD_TAG:
            raise ValueError(f"{TYPES[kind]}: {len(packet)} bytes, expected a body and its tag after {HEADER.size}")
        if key_id not in self._keys:
            raise ValueError(f"key id, byte 8: {key_id}, expected one of {sorted(self._keys)}")
        mac_key, body_key = self._keys[key_id]
        expected = crypto_shorthash_siphashx24(packet[:SIGNED_END] + packet[RELAY_END:], mac_key)
        if not hmac.compare_digest(mac, expected):
            raise ValueError(
                f"MAC, bytes 64-79: not what the key with the id {key_id} gives for this packet, expected that"
            )
        if incarnation == 0:
            raise ValueError("incarnation, bytes 12-15: 0, expected at least 1")
        if sequence == 0:
            raise ValueError("sequence, bytes 16-23: 0, expected at least 1")
        message: str | None = None
        fields: dict[str, Any] = {}
        if kind not in WITHOUT_BODY:
            message, fields = _message(kind, _open(packet, salt, body_key))
        return Packet(
            magic=magic, version=version, type=kind, type_name=TYPES[kind], cluster=cluster, key_id=key_id, flags=flags,
            origin=_address_text(address, port), incarnation=incarnation, sequence=sequence, wall_time=wall_time,
            documents_digest=documents, record_digest=record, mac=mac, ttl=ttl, hops=hops, fan_out=fan_out,
            reserved=reserved, salt=salt, message=message, fields=fields,
        )  # fmt: skip


def frames(stream: bytes) -> list[bytes]:
    """Return the packets of what was read from a TCP connection; raise ValueError where it ends within a frame."""
    packets = []
    at = 0
    while at < len(stream):
        if len(stream) - at < 4:
            raise ValueError(f"stream at {at}: {len(stream) - at} bytes, expected 4 of length")
        length = int.from_bytes(stream[at : at + 4], "big")
        if length < HEADER.size:
            raise ValueError(f"stream at {at}: a frame of {length} bytes, expected at least {HEADER.size}")
        packet = stream[at + 4 : at + 4 + length]
        if len(packet) != length:
            raise ValueError(f"stream at {at + 4}: {len(packet)} bytes, expected a packet of {length}")
        packets.append(packet)
        at += 4 + length
    return packets


def documents_digest(documents: Iterable[Mapping[str, Any]]) -> int:
    """Return the digest of documents and tombstones as they come out of `Decoder.decode`, 0 without any."""
    total = 0
    for document in documents:
        value_hash = hashlib.sha256(document["value"]).digest()
        deleted = bytes([1 if document["deleted"] else 0])
        total += _digest_of_parts(
            b"xg-document", [document["key"].encode(), document["version"].encode(), value_hash, deleted]
        )
    return total % (1 << 64)


def record_digest(record: Mapping[str, Any]) -> int:
    """Return the digest of a record as it comes out of `Decoder.decode`, never 0."""
    parts = [record[name] for name in ("name", "private_data", "agent_version", "data_plane")]
    later = [
        record["zone"],
        f"{record['signers']:016x}" if record["signers"] else "",
        " ".join(f"{key['fingerprint']:016x} {key['state']}" for key in record["keys"]),
    ]
    while later and not later[-1]:
        later.pop()
    return _digest_of_parts(b"xg-record", [part.encode() for part in parts + later]) or 1


def bucket_of(key: str) -> int:
    """Return the bucket, 0 to 255, that the document of a key is in."""
    return hashlib.blake2b(key.encode(), digest_size=1, person=b"xg-bucket").digest()[0]


def _digest_of_parts(person: bytes, parts: list[bytes]) -> int:
    data = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return int.from_bytes(hashlib.blake2b(data, digest_size=8, person=person).digest(), "big")


def _material(secret: str, salt: bytes) -> bytes:
    """Return what HKDF derives the keys of a secret from: a generated key's bytes, or the stretched passphrase."""
    if not secret.startswith("xgk1_"):
        return hashlib.scrypt(secret.encode(), salt=salt, n=32768, r=8, p=3, maxmem=1 << 26, dklen=32)
    return base64.urlsafe_b64decode(secret[5:] + "=")


def _derive(material: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=salt, info=info).derive(material)


def _open(packet: bytes, salt: bytes, body_key: bytes) -> Any:
    """Decrypt the body of a packet and read its msgpack."""
    head = packet[:SIGNED_END]
    key = hashlib.blake2s(head, digest_size=32, key=body_key, salt=salt + bytes(4)).digest()
    try:
        body = ChaCha20Poly1305(key).decrypt(bytes(12), packet[HEADER.size :], head)
    except InvalidTag:
        raise ValueError("body, bytes 88-: its tag is wrong, expected what the key of the body gives") from None
    try:
        # Maps with any keys may stand in the fields of a later release, that are passed over.
        return msgpack.unpackb(body, strict_map_key=False)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"body: {type(error).__name__} {error}, expected one msgpack array") from error


def _message(kind: int, body: Any) -> tuple[str, dict[str, Any]]:
    """Check a body's array and return the name and the fields of the message."""
    if not isinstance(body, list) or not body:
        raise ValueError(f"body: {_shown(body)}, expected an array that begins with a tag")
    tag = body[0]
    if type(tag) is not int or tag not in MESSAGES:
        raise ValueError(f"body's tag: {_shown(tag)}, expected 1 to {max(MESSAGES)}")
    name, specification, kinds = MESSAGES[tag]
    if kind not in kinds:
        raise ValueError(f"{name} in a packet of type {kind} ({TYPES[kind]}), expected in types {kinds}")
    fields = _fields(name, specification, body[1:])
    if name == "Chunk" and fields["head"]["value"]:
        raise ValueError(f"Chunk.head.value: {len(fields['head']['value'])} bytes, expected none")
    if name == "Answer":
        lengths = (0,) if fields["version"] is None else (0, 32)
        if len(fields["content_hash"]) not in lengths:
            raise ValueError(f"Answer.content_hash: {len(fields['content_hash'])} bytes, expected one of {lengths}")
    return name, fields


_EMPTY = {"text*": ""}


def _fields(where: str, specification: str, values: list[Any]) -> dict[str, Any]:
    """Check an array against its fields; what stands behind them is passed over."""
    fields: dict[str, Any] = {}
    for index, item in enumerate(specification.split()):
        name, _, kind = item.partition(":")
        if index < len(values):
            fields[name] = _value(f"{where}.{name}", kind.rstrip("*"), values[index])
        elif kind.endswith("*"):
            fields[name] = None if kind.endswith("?*") else [] if kind.startswith("[") else _EMPTY.get(kind, 0)
        else:
            raise ValueError(f"{where}: {len(values)} fields, expected also {name} ({kind})")
    return fields


def _value(where: str, kind: str, value: Any) -> Any:
    """Check a value against its type and return it, addresses and versions as text."""
    if kind.endswith("?"):
        return None if value is None else _value(where, kind[:-1], value)
    if kind.startswith("[") and isinstance(value, list):
        return [_value(f"{where}[{index}]", kind[1:-1], item) for index, item in enumerate(value)]
    if kind in STRUCTURES and isinstance(value, list):
        return _fields(where, STRUCTURES[kind], value)
    if kind in INTEGERS and type(value) is int and 0 <= value < 1 << INTEGERS[kind]:
        return value
    if kind == "state" and type(value) is int and 0 <= value < len(STATES):
        return value
    if kind == "key_state" and type(value) is int and 0 <= value < len(KEY_STATES):
        return KEY_STATES[value]
    if kind == "edge_state" and type(value) is int and 0 <= value < len(EDGE_STATES):
        return value
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind in ("text", "key") and isinstance(value, str):
        return value
    if isinstance(value, bytes):
        if kind == "bytes" or (kind == "hash" and len(value) == 32):
            return value
        if kind == "address" and len(value) == 18:
            return _address_text(value[:16], int.from_bytes(value[16:], "big"))
        if kind == "version" and len(value) == 26:
            return f"{value[:8].hex()}@{_address_text(value[8:24], int.from_bytes(value[24:], 'big'))}"
    lengths = {"hash": " of 32 bytes", "address": " of 18 bytes", "version": " of 26 bytes"}
    raise ValueError(f"{where}: {_shown(value)}, expected {kind}{lengths.get(kind, '')}")


def _address_text(address: bytes, port: int) -> str:
    ip = ipaddress.IPv6Address(address)
    return f"[{ip.compressed}]:{port}" if ip.ipv4_mapped is None else f"{ip.ipv4_mapped}:{port}"


def _shown(value: Any) -> str:
    """Return a value's type and its beginning, for a message."""
    size = f" of {len(value)}" if isinstance(value, (bytes, str, list, dict)) else ""
    text = repr(value[:16] if isinstance(value, (bytes, str)) else value)
    return f"{type(value).__name__}{size} {text[:60]}"
