# SPDX-License-Identifier: MIT
"""Reads and sets features and channels of an interface, and reads its driver, as ``ethtool`` does (linux/ethtool.h).

The ioctl() calls use a Unix socket, because any socket works and the loader's systemd unit forbids Internet sockets.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
import socket
import struct
from dataclasses import dataclass

_SIOCETHTOOL = 0x8946
_REQUEST = struct.Struct("@16sP")
_REQUEST_BYTES = 40
_GDRVINFO, _GSTRINGS, _GSSET_INFO = 3, 0x1B, 0x37
_GFEATURES, _SFEATURES, _GCHANNELS, _SCHANNELS = 0x3A, 0x3B, 0x3C, 0x3D
_SET_FEATURES = 4
_STRING_BYTES = 32
#: Fields of struct ethtool_channels: cmd; maximum of rx, tx, other, combined; current rx, tx, other, combined.
_CHANNELS = struct.Struct("=9I")

#: Features, by the names that the kernel uses. ``WORDS`` maps the kernel's names to the names in ``ethtool -K``.
LRO, GRO_HW, RX_VLAN, TX_VLAN = "rx-lro", "rx-gro-hw", "rx-vlan-hw-parse", "tx-vlan-hw-insert"
WORDS = {LRO: "lro", GRO_HW: "rx-gro-hw", RX_VLAN: "rxvlan", TX_VLAN: "txvlan"}


@dataclass(frozen=True)
class Feature:
    """The state of a feature.

    ``on``: the feature is enabled. ``fixed``: the feature cannot be changed.
    """

    on: bool
    fixed: bool


@dataclass(frozen=True)
class Channels:
    """Combined queues (receive and transmit) of a device: the present number and the maximum."""

    combined: int
    most: int


def features(name: str) -> dict[str, Feature]:
    """Return every feature of an interface: the kernel's name of the feature -> its state. Raises ``OSError``."""
    names = _feature_names(name)
    blocks = (len(names) + 31) // 32
    answer = _ask(name, struct.pack("=II", _GFEATURES, blocks) + bytes(16 * blocks))
    found = {}
    for index, feature in enumerate(names):
        available, _requested, active, never = struct.unpack_from("=4I", answer, 8 + 16 * (index // 32))
        bit = 1 << index % 32
        found[feature] = Feature(bool(active & bit), not available & bit or bool(never & bit))
    return found


def set_feature(name: str, feature: str, on: bool) -> None:
    """Switch a feature.

    Raises ``OSError`` if the kernel refuses the request, or accepts the request but does not change the feature.
    """
    names = _feature_names(name)
    index, blocks = names.index(feature), (len(names) + 31) // 32
    body = bytearray(8 * blocks)
    struct.pack_into("=II", body, 8 * (index // 32), 1 << index % 32, (1 << index % 32) if on else 0)
    _ask(name, struct.pack("=II", _SFEATURES, blocks) + body)
    if features(name)[feature].on != on:
        raise OSError(errno.EOPNOTSUPP, f"{WORDS.get(feature, feature)} stays {'off' if on else 'on'}", name)


def channels(name: str) -> Channels | None:
    """Return the combined channels; None if the interface has none. Raises ``OSError``."""
    try:
        numbers = _CHANNELS.unpack(_ask(name, _CHANNELS.pack(_GCHANNELS, *(0,) * 8)))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL):
            return None
        raise
    return Channels(numbers[8], numbers[4]) if numbers[4] else None


def set_channels(name: str, combined: int) -> None:
    """Set the number of combined channels. Raises ``OSError``."""
    numbers = list(_CHANNELS.unpack(_ask(name, _CHANNELS.pack(_GCHANNELS, *(0,) * 8))))
    numbers[0], numbers[8] = _SCHANNELS, combined
    _ask(name, _CHANNELS.pack(*numbers))


def driver(name: str) -> str:
    """Name of the interface's driver; "" if the kernel reports none."""
    try:
        answer = _ask(name, struct.pack("=I", _GDRVINFO) + bytes(192))
    except OSError:
        return ""
    return answer[4:36].rstrip(b"\0").decode("ascii", "replace")


@functools.lru_cache(maxsize=1)
def _names_of_features(count: int, name: str) -> tuple[str, ...]:
    answer = _ask(name, struct.pack("=III", _GSTRINGS, _SET_FEATURES, count) + bytes(count * _STRING_BYTES))
    return tuple(
        answer[at : at + _STRING_BYTES].rstrip(b"\0").decode("ascii", "replace")
        for at in range(12, 12 + count * _STRING_BYTES, _STRING_BYTES)
    )


def _feature_names(name: str) -> tuple[str, ...]:
    answer = _ask(name, struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _SET_FEATURES, 0))
    return _names_of_features(struct.unpack_from("=I", answer, 16)[0], name)


def _ask(name: str, command: bytes) -> bytes:
    """Send an ethtool command to the kernel and return the answer. Raises ``OSError``."""
    room = ctypes.create_string_buffer(command, len(command))
    request = _REQUEST.pack(name.encode(), ctypes.addressof(room)).ljust(_REQUEST_BYTES, b"\0")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            fcntl.ioctl(channel, _SIOCETHTOOL, request)
        except OSError as error:
            raise OSError(error.errno, error.strerror, name) from None
    return room.raw
