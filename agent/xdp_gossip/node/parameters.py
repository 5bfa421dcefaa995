# SPDX-License-Identifier: MIT
"""Validates the values that an application passes to the library.

Each error names the parameter, the expected value and the actual value. A wrong type raises ``TypeError``, a wrong
value ``ValueError``. Values that the protocol validates itself, such as the length of a comment, are not checked here.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..config.settings import ClusterKey, DataPlaneConfig, NodeSettings, rules
from ..core.allowlist import MOST, parse_network
from ..core.checks import choice as choice
from ..core.checks import flag as flag
from ..core.checks import instance as instance
from ..core.checks import integer as integer
from ..core.checks import number as number
from ..core.checks import text as text
from ..core.interface import InvalidError
from ..core.settings import KEY_STATES, Limits, knobs
from ..core.shown import shown
from ..core.signatures import MAX_SIGNED_AT
from ..core.signers import Signer
from ..core.types import MAX_ZONE, Address, Document, Node, Signed, State, Version, Write, check_key
from ..signing.signers import check_signers

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_STATE_DIGEST = re.compile(r"[0-9a-f]{16}")


def content(name: str, value: object) -> bytes:
    """Return the bytes-like object ``value`` as bytes."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"{name}: expected bytes, got {shown(value)}")
    return bytes(value)


def path(name: str, value: object) -> Path:
    """Return ``value``, a path given as text, as a ``Path``."""
    if not isinstance(value, (str, os.PathLike)):
        raise TypeError(f"{name}: expected a path, got {shown(value)}")
    found = os.fspath(value)
    if not isinstance(found, str):
        raise TypeError(f"{name}: expected a path of text, got {shown(value)}")
    if not found or "\0" in found:
        raise ValueError(f"{name}: expected a path, got {shown(value)}")
    return Path(found)


def settings(given: Mapping[str, object]) -> NodeSettings:
    """Build a node's settings from the arguments of a node list's constructor.

    Raises ``TypeError`` or ``ValueError`` for the first invalid parameter.
    """
    first = knobs(NodeSettings)
    wire = first["wire"].check("wire", given["wire"])
    protocol = first["protocol"].check("protocol", given["protocol"])
    declared = rules(NodeSettings, wire, protocol)
    values = {name: knob.check(name, given[name]) for name, knob in declared.items() if not knob.words}
    state_dir = given["state_dir"]
    values.update(
        listen_addr=listen_address("listen_addr", given["listen_addr"]),
        limits=instance("limits", given["limits"], Limits, "Limits"),
        keys=keys("keys", given["keys"]),
        signers=signers("signers", given["signers"]),
        state_dir="" if state_dir is None else str(path("state_dir", state_dir)),
        dataplane=DataPlaneConfig(
            directory=str(path("dataplane", given["dataplane"])), allow=networks("allow", given["allow"])
        ),
    )
    if values["keys"] and wire == "pekonode":
        raise ValueError("keys: expected none with wire='pekonode', which supports only secret_key")
    if values["signers"] and wire == "pekonode":
        raise ValueError("signers: expected none with wire='pekonode', which has no signed documents")
    if values["zone"] and wire == "pekonode":
        raise ValueError("zone: expected none with wire='pekonode', whose packets contain no zone")
    if values["keys"] and values["secret_key"]:
        raise ValueError("keys: expected either keys or secret_key, got both")
    return NodeSettings(**values)


def listen_address(name: str, value: object) -> str:
    """Validate an address to listen on (0.0.0.0 and :: are allowed) and return it in canonical form."""
    found = instance(name, value, str, "an IPv4 or IPv6 address")
    try:
        address = Address.of(found, 1)
    except ValueError:
        raise ValueError(f"{name}: expected an IPv4 or IPv6 address, got {shown(value)}") from None
    if address.is_group:
        raise ValueError(f"{name}: expected the address of a host, got {shown(value)}")
    return address.ip


def node(name: str, value: object) -> Node:
    """Return ``value`` if it is a node with the address of a single host."""
    found = instance(name, value, Node, "a Node")
    if found.address.is_group:
        raise ValueError(f"{name}: addr: expected the address of one host, got {found.addr}")
    return found


def local_node(name: str, value: object, listen_addr: str) -> Node:
    """Return ``value`` if it is a node whose address family matches ``listen_addr``; ``::`` matches both families."""
    found = node(name, value)
    six = ":" in found.addr
    if listen_addr != "::" and (":" in listen_addr) is not six:
        wanted = "an IPv4 address" if six else "an IPv6 address"
        raise ValueError(f"{name}: addr: expected {wanted}, as listen_addr {listen_addr} is one, got {found.addr}")
    return found


def other_node(name: str, value: object, local: Node) -> Node:
    """Validate and return ``value``, a node that does not have to be the node ``local``.

    The node's address must name a single host. The address 0.0.0.0, as in PekoNode's example, is accepted only if no
    other host can reach the address of ``local``; 0.0.0.0 then means this host.
    """
    found = node(name, value)
    if not found.address.is_one_host and not local.address.is_here:
        raise ValueError(f"{name}: addr: expected the address of one host, got {found.addr}")
    return found


def version(name: str, value: object) -> Version:
    """Return ``value`` as a version. ``value`` may be a ``Version`` or the text of a version."""
    if isinstance(value, str):
        try:
            return Version.parse(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    found = instance(name, value, Version, "a Version or its text")
    hlc = integer(f"{name}: hlc", found.hlc, 0, 2**64 - 1)
    origin = instance(f"{name}: origin", found.origin, Address, "an Address")
    try:
        return Version(hlc, Address.of(origin.ip, origin.port))
    except ValueError as error:
        raise ValueError(f"{name}: origin: {error}") from None


def document_key(name: str, value: object) -> str:
    """Validate and return a document key. Raises ``InvalidError`` for an invalid key."""
    found = instance(name, value, str, "text")
    try:
        return check_key(found)
    except ValueError as error:
        raise InvalidError("invalid_document", str(error), key=found) from None


def digest(name: str, value: object, of_state: bool) -> str:
    """Validate and return a digest: the documents digest if ``of_state`` is true, otherwise a document's digest."""
    example = "16 hex digits" if of_state else "sha256: and 64 hex digits"
    found = instance(name, value, str, example)
    if not (_STATE_DIGEST if of_state else _DIGEST).fullmatch(found):
        raise ValueError(f"{name}: expected {example}, got {shown(value)}")
    return found


def members_wanted(name: str, value: object) -> str | int:
    """Validate and return the number of members to wait for (all, majority or a whole number)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return integer(name, value, 0, 1_000_000)
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected all, majority or a number, got {shown(value)}")
    if value in ("all", "majority"):
        return value
    if not (value.isascii() and value.isdigit() and len(value) <= 7):
        raise ValueError(f"{name}: expected all, majority or a number, got {shown(value)}")
    return int(value)


def states(name: str, value: object) -> frozenset[State] | None:
    """Return ``value`` as a frozen set of states, or None."""
    if value is None:
        return None
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected a set of State, or None, got {shown(value)}")
    return frozenset(instance(name, each, State, "a set of State") for each in value)


def zones(name: str, value: object) -> frozenset[str] | None:
    """Return ``value`` as a frozen set of zones, or None."""
    if value is None:
        return None
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected a set of zones, or None, got {shown(value)}")
    return frozenset(text(name, each, 0, MAX_ZONE) for each in value)


def generator(name: str, value: object) -> random.Random:
    """Return ``value`` if it is a random number generator; create a new one for None."""
    return random.Random() if value is None else instance(name, value, random.Random, "a random.Random, or None")


def networks(name: str, value: object) -> tuple[str, ...]:
    """Validate networks given as text, such as 10.0.0.0/8, and return them in canonical form."""
    found = []
    for each in sequence(name, value, "networks as text"):
        if not isinstance(each, str):
            raise TypeError(f"{name}: expected networks as text, got {shown(each)}")
        try:
            found.append(str(parse_network(each)))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    if len(found) > MOST:
        raise ValueError(f"{name}: expected at most {MOST} networks, got {len(found)}")
    return tuple(found)


def keys(name: str, value: object) -> tuple[ClusterKey, ...]:
    """Build cluster keys from tuples (state, secret). Errors never quote the value, which may be a secret."""
    found = []
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name}: expected a list of (state, secret), got {type(value).__name__}")
    for position, each in enumerate(value):
        where = f"{name}[{position}]"
        if not isinstance(each, (tuple, list)) or len(each) != 2:
            raise TypeError(f"{where}: expected (state, secret), got another {type(each).__name__}")
        state, own = each
        if not isinstance(state, str):
            raise TypeError(f"{where}: state: expected text, got {type(state).__name__}")
        if state not in KEY_STATES:
            raise ValueError(f"{where}: state: expected one of {', '.join(KEY_STATES)}")
        found.append(ClusterKey(state, text(f"{where}: secret", own, 1, secret=True)))
    return tuple(found)


def signers(name: str, value: object) -> tuple[Signer, ...]:
    """Return ``value`` as a tuple of signers with different names and keys."""
    found = tuple(instance(name, each, Signer, "a list of Signer") for each in sequence(name, value, "Signer"))
    check_signers(name, found)
    return found


def sequence(name: str, value: object, of: str) -> Sequence[object]:
    """Return ``value`` if it is a list or a tuple."""
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{name}: expected a list of {of}, got {shown(value)}")
    return value


def documents(name: str, value: object) -> list[Document]:
    """Return ``value`` as a list of documents, with all their versions validated."""
    found = [instance(name, each, Document, "a list of Document") for each in sequence(name, value, "Document")]
    for index, each in enumerate(found):
        version(f"{name}[{index}].version", each.version)
        if each.base is not None:
            version(f"{name}[{index}].base", each.base)
        for ancestor in sequence(f"{name}[{index}].ancestors", each.ancestors, "Version"):
            version(f"{name}[{index}].ancestors", ancestor)
    return found


def write(name: str, value: object) -> Write:
    """Return ``value`` if it is a write whose fields have valid types; a version may be given as text.

    ``name`` is the prefix of the field names in errors.
    """
    found = instance(name.rstrip("."), value, Write, "a Write")
    expires_in = found.expires_in
    if isinstance(expires_in, bool) or not isinstance(expires_in, (int, float, type(None))):
        raise TypeError(f"{name}expires_in: expected a number of seconds, got {shown(expires_in)}")
    return Write(
        document_key(f"{name}key", found.key),
        content(f"{name}value" if name else "data", found.value),
        None if found.content_type is None else instance(f"{name}content_type", found.content_type, str, "text"),
        None if found.expected is None else version(f"{name}expected", found.expected),
        flag(f"{name}absent", found.absent),
        expires_in,
        flag(f"{name}deleted", found.deleted),
        instance(f"{name}suffix", found.suffix, str, "text"),
        integer(f"{name}expires", found.expires, 0, MAX_SIGNED_AT // 1000),
        signed=None if found.signed is None else _signed(f"{name}signed", found.signed),
    )


def _signed(name: str, value: object) -> Signed:
    """Return ``value`` if it is the part of a write that its signer decides, with fields of valid types."""
    found = instance(name, value, Signed, "a Signed, or None")
    return Signed(
        integer(f"{name}: signed_at", found.signed_at, 0, MAX_SIGNED_AT),
        tuple(version(f"{name}: read", each) for each in sequence(f"{name}: read", found.read, "versions")),
        content(f"{name}: blob", found.blob),
    )
