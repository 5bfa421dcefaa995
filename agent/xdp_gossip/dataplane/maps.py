# SPDX-License-Identifier: MIT
"""Typed access to the pinned maps of a loaded data plane. Calls raise ``MapError`` if the kernel refuses an access.

docs/architecture.md describes the purpose of each map; the structures are in ``bpf/maps.h`` and ``layout.py``.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.events import Standing
from ..core.kernel_view import Observation
from ..core.observers.edges import Acknowledgement
from ..core.runs import later
from ..core.types import Address, Now
from . import headers, layout
from .libbpf import EXIST, LOCK, NOEXIST, LibraryMissing, Map, MapError, RingBuffer
from .totals import Totals

#: Value of ``protocol`` -> allowed modes, in the loader's notation, best first.
_ACCEPTED = {"AUTO": ("XDP (native)", "XDP (generic)", "TC"), "XDP": ("XDP (native)", "XDP (generic)"), "TC": ("TC",)}
_STANDINGS = {"present": "XG_PRESENT", "suspect": "XG_SUSPECT", "gone": "XG_GONE"}
_MASK = (1 << 64) - 1
_UP = "xdp-gossip dataplane up"
#: Name of the loader's state file, and name of the XDP ingress program in that file (dataplane/loader/state.py).
_STATE, _XDP_PROGRAM = "state.json", "xg_xdp_ingress"


def best_mode(protocol: str) -> str:
    """The best mode that ``protocol`` (auto, XDP or TC) allows."""
    return _ACCEPTED[protocol.upper()][0]


class PlaneError(Exception):
    """This agent cannot use any data plane; the message gives the reason and the remedy."""


class AtWork(PlaneError):
    """A loader is running, or died while it was running, so the data plane is incomplete."""


@dataclass(frozen=True)
class Loaded:
    """The data plane that the loader recorded.

    ``reason``: why no better mode is in use. ``program``: id of the XDP program, 0 for TC. ``owners``: indexes of the
    interfaces that had the node's address. ``named``: whether the operator named the interface.
    ``container``: SHA-256 of the program container from which the programs were loaded; "" if they were compiled here.
    """

    mode: str
    interface: str
    ifindex: int
    amount: int
    wide: int
    reason: str
    program: int = 0
    owners: frozenset[int] = frozenset()
    named: bool = False
    container: str = ""

    @staticmethod
    def stamp(directory: Path) -> tuple[int, int] | None:
        """A value that changes whenever a loader writes its state file; None if there is no state file."""
        try:
            found = os.stat(directory / _STATE)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    @staticmethod
    def proved(directory: Path) -> float:
        """The time, in seconds since the epoch, at which a loader last verified that the data plane delivers packets; 0
        if never.

        The state file's modification time may be later than the last check, because a loader also writes its state
        before a repair.
        """
        found = _told(directory, "proved")
        return float(found) if isinstance(found, (int, float)) else 0.0

    @staticmethod
    def asked(directory: Path) -> str:
        """The interface that the operator configured for the loader; "" if none."""
        found = _told(directory, "asked")
        return found if isinstance(found, str) else ""

    @classmethod
    def read(cls, directory: Path, protocol: str) -> Loaded:
        """Read the loader's state, and check that ``protocol`` (auto, XDP or TC) can use the data plane. Raises
        ``PlaneError``.
        """
        path = directory / _STATE
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            # A refusal without a mode applies to all modes, for example if BCC is missing.
            refusals = "; ".join(
                f"{refusal['mode']}: {refusal['reason']}" if refusal["mode"] else str(refusal["reason"])
                for refusal in state["reasons"]
            )
            waiting = state.get("waiting", "")
            found, own = state["layout"], headers.constants()["XG_LAYOUT"]
            mode = state["mode"]
            program = state.get("programs", {}).get(_XDP_PROGRAM, 0) if mode.startswith("XDP") else 0
            loaded = cls(
                mode,
                state["interface"],
                state["ifindex"],
                state["amount"],
                state["wide"],
                refusals,
                int(program),
                frozenset(state.get("owners", ())),
                bool(state.get("asked")),
                str(state.get("container", "")),
            )
            complete = state["complete"]
        except FileNotFoundError:
            raise PlaneError(f"no kernel data plane is loaded: {path} is not there; {_UP} (as root)") from None
        except OSError as error:
            raise PlaneError(f"{path}: {error.strerror}") from None
        except headers.HeaderError as error:
            raise PlaneError(str(error)) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PlaneError(f"{path}: not understood ({type(error).__name__}: {error}); {_UP} (as root)") from None
        if found != own:
            raise PlaneError(f"the loaded data plane has layout {found}, this agent's is {own}; {_UP} (as root)")
        if not complete:
            raise AtWork(f"the data plane is not complete (is a loader at work?): {path}")
        if waiting:
            raise PlaneError(f"the loader waits: {waiting}")
        if not loaded.mode:
            raise PlaneError(f"the loader found no mode that works here: {refusals}; xdp-gossip doctor")
        if loaded.mode not in _ACCEPTED[protocol.upper()]:
            raise PlaneError(f"the data plane is up in mode {loaded.mode}, not in one of protocol {protocol}; {_UP}")
        return loaded


def _told(directory: Path, what: str) -> object:
    """Read an entry of the loader's state file; None if the entry is missing.

    The result is also None if the file cannot be read, because :meth:`Loaded.read` reports this error.
    """
    try:
        return json.loads((directory / _STATE).read_text(encoding="utf-8")).get(what)
    except (OSError, ValueError, AttributeError):
        return None


@dataclass(frozen=True)
class Config:
    """The fields of ``struct xg_config``, except the fields for the node's identity, its key and for the ring.

    Times are in seconds, ``clock`` and ``wall`` in ns. ``renewed``: the time of this write. ``packet_flags``: the flags
    in the header of this node's packets.
    """

    running: bool
    incarnation: int
    documents_digest: int
    lease: float
    clock: int
    timeout: float
    max_clock_drift: float
    asked: int
    wall: int
    record_digest: int
    renewed: float
    packet_flags: int


class DataPlane:
    """An open data plane.

    ``amount``: number of copies that the agent requests for a rumor. ``wide``: number of copies for a metadata rumor or
    a leave. The loaded programs limit ``amount`` and ``wide``.
    """

    def __init__(self, directory: Path, loaded: Loaded, own: Address, cluster: int, amount: int, wide: int) -> None:
        """Open the maps. Raises ``PlaneError``, after closing the maps that were already open."""
        constants = headers.constants()
        self.directory = directory
        self.loaded = loaded
        self._own = own
        self._identity = (own.packed, own.port.to_bytes(2, "big"), cluster.to_bytes(4, "big"))
        self._copies = min(amount, loaded.amount), min(wide, loaded.wide)
        self._ring = constants["XG_RING"]
        self._running = constants["XG_RUNNING"]
        self._flags = constants["XG_GENERIC"] if loaded.mode == "XDP (generic)" else 0
        self._barring = constants["XG_ALLOW"]
        self._standings = {name: constants[constant] for name, constant in _STANDINGS.items()}
        self._rounds = constants["XG_ROUNDS"]
        self._asked = self._key_id = 0
        self._half = self.ring_size = 0
        self._written = b""
        pins = directory / "bpf" / f"v{constants['XG_LAYOUT']}"
        self._pin = pins / "config"
        self._maps: list[Map | RingBuffer] = []
        try:
            self._inode = self._look()
            self._config = self._open(pins / "config", 4, layout.CONFIG.size)
            self._keys = self._open(pins / "keys", 4, layout.KEY.size)
            self._nodes = self._open(pins / "nodes", layout.NODE_KEY.size, layout.NODE.size)
            self._acks = self._open(pins / "acks", layout.NODE_KEY.size, layout.ACK.size)
            self._allow = self._open(pins / "allow", layout.ALLOW_KEY.size, 1)
            self._targets = self._open(pins / "targets", 4, layout.TARGET.size)
            self._totals = Totals(self._open(pins / "counters", 4, 8))
            self._events = RingBuffer(pins / "events")
            self._maps.append(self._events)
        except LibraryMissing as error:
            self.close()
            raise PlaneError(str(error)) from None
        except MemoryError:
            self.close()
            raise PlaneError(
                "libffi cannot create a callback for C code (MemoryDenyWriteExecute needs libffi 3.4)"
            ) from None
        except OSError as error:
            self.close()
            raise PlaneError(f"{_words(error)}{_hint(error)}") from None

    def _open(self, path: Path, key_size: int, value_size: int) -> Map:
        opened = Map(path, key_size, value_size)
        self._maps.append(opened)
        return opened

    @property
    def mode(self) -> str:
        """The mode in the loader's notation: XDP (native), XDP (generic) or TC."""
        return self.loaded.mode

    @property
    def events_fd(self) -> int:
        """A descriptor that is readable while the ring buffer contains records."""
        return int(self._events.fd)

    def _look(self) -> tuple[int, int]:
        found = os.stat(self._pin)
        return found.st_dev, found.st_ino

    def there(self) -> bool:
        """Whether the open maps are still the pinned maps: a loader may have removed or replaced the pins."""
        try:
            return self._look() == self._inode
        except OSError:
            return False

    def close(self) -> None:
        """Close the descriptors. The data plane continues to work until its lease ends. Idempotent."""
        for opened in self._maps:
            opened.close()

    # -- who we are --------------------------------------------------------------------------------------------

    def take_over(self, mono: float) -> bool:
        """Claim the data plane for this node. If the maps belong to another node, delete that node's entries.

        Returns True if the maps already belonged to this node. Raises ``PlaneError`` if another agent on this host uses
        the data plane.
        """
        held = self._config.lookup(_INDEX)
        assert held is not None  # in an array map, every entry exists
        addr, port, _, _, flags, cluster, _, _, lease, _, _, _, half, *_ = layout.CONFIG.unpack(held)
        if (addr, port, cluster) == self._identity:
            self._half, self.ring_size = half & 1, 0
            return True
        other = int.from_bytes(port, "big")
        if flags & self._running and lease > mono * 1e9 and other and (addr, port) != self._identity[:2]:
            address = Address.unpack(addr, other)
            if _bound(address):
                raise PlaneError(
                    f"the data plane is in use by the agent at {address}: an interface has only one data plane"
                )
        self._config.update(_INDEX, bytes(layout.CONFIG.size))
        for keys, _ in list(self._nodes.batches()):
            self._nodes.delete_many(keys)
        return False

    def write_keys(self, keys: Sequence[tuple[int, bytes]], active: int) -> None:
        """Write ``keys``: pairs of key id (0 to 255) and MAC key (16 bytes). All other keys are removed.

        ``active``: id of the key that signs answers from the next :meth:`write_config` on.
        """
        self._key_id = active
        values = [bytes(layout.KEY.size)] * 256
        for key_id, key in keys:
            values[key_id] = layout.KEY.pack(1, key)
        self._keys.update_many(struct.pack("=256I", *range(256)), b"".join(values))

    def add_keys(self, keys: Sequence[tuple[int, bytes]]) -> None:
        """Write ``keys`` (see :meth:`write_keys`), and keep the other keys. The key that signs stays the same."""
        for key_id, key in keys:
            self._keys.update(struct.pack("=I", key_id), layout.KEY.pack(1, key))

    def sign_with(self, active: int) -> None:
        """Sign answers with the key whose id is ``active`` from the next :meth:`write_config` on."""
        self._key_id = active

    def write_allow(self, entries: Mapping[tuple[int, bytes], bool]) -> None:
        """Write the list of allowed sources (:meth:`AllowList.entries`); an empty list allows all sources.

        The list takes effect with the next :meth:`write_config`.
        """
        wanted = {layout.ALLOW_KEY.pack(*network): bytes([admitted]) for network, admitted in entries.items()}
        # Write new entries before deleting old entries, because the old list is in force until the next configuration.
        for key, value in wanted.items():
            self._allow.update(key, value)
        for key in self._allow.keys():
            if key not in wanted:
                self._allow.delete(key)
        self._flags = self._flags & ~self._barring | (self._barring if wanted else 0)

    def write_config(self, config: Config) -> None:
        """Write the configuration, unless it equals the configuration last written."""
        addr, port, cluster = self._identity
        packed = layout.CONFIG.pack(
            addr,
            port,
            *self._copies,
            self._flags | (self._running if config.running else 0),
            cluster,
            config.incarnation,
            config.documents_digest,
            _ns(config.lease),
            config.clock,
            _ns(config.timeout),
            _ns(config.max_clock_drift),
            self._half,
            self.ring_size,
            config.asked,
            config.wall,
            config.record_digest,
            _ns(config.renewed),
            self._key_id,
            config.packet_flags,
        )
        self._asked = config.asked
        if packed != self._written:
            self._config.update(_INDEX, packed)
            self._written = packed

    def write_targets(self, targets: Sequence[Address]) -> None:
        """Write relay targets to the unused half of the ring.

        The next call of :meth:`write_config` makes the kernel use the newly written half.
        """
        half = 1 - self._half
        pack = layout.TARGET.pack
        first, size = half * self._ring, min(len(targets), self._ring)
        values = b"".join(pack(target.packed, target.port.to_bytes(2, "big")) for target in targets[:size])
        self._targets.update_many(struct.pack(f"={size}I", *range(first, first + size)), values)
        self._half, self.ring_size = half, size

    # -- the others --------------------------------------------------------------------------------------------

    def observations(self, now: Now) -> list[Observation]:
        """Return the kernel's records of the nodes that sent rumors, without the nodes whose standing is "gone"."""
        here = now.wall_ns - _ns(now.mono)
        gone = self._standings["gone"]
        rows: list[Observation] = []
        for keys, values in self._nodes.batches(flags=LOCK):
            rows += [
                (key, incarnation, highest, window, seen / 1e9, (clock - here) / 1e9, state, record, flags)
                for (key,), (_, incarnation, highest, window, seen, clock, state, record, standing, flags, _, _) in zip(
                    _KEYS.iter_unpack(keys), layout.NODE.iter_unpack(values)
                )
                if standing != gone
            ]
        return rows

    def acknowledgements(self, now: Now) -> list[Acknowledgement]:
        """Return what the kernel recorded of the nodes that acknowledged one of this node's last rounds."""
        here = now.wall_ns - _ns(now.mono)
        oldest = self._asked - self._rounds
        rows: list[Acknowledgement] = []
        for keys, values in self._acks.batches():
            rows += [
                (key, incarnation, newest, window, seen / 1e9, (clock - here) / 1e9, state, record, flags, age)
                for (key,), (incarnation, age, newest, window, seen, clock, state, record, flags) in zip(
                    _KEYS.iter_unpack(keys), layout.ACK.iter_unpack(values)
                )
                if oldest < newest <= self._asked
            ]
        return rows

    def apply(self, standing: Standing, now: Now) -> bool:
        """Write a peer's standing (present, suspect or gone) to the map of nodes, or delete the entry of a forgotten
        peer.

        Returns False if the map has no room for the entry. A packet that the kernel processes while this method reads
        and writes the entry may be accepted a second time. The engine detects the duplicate.
        """
        key = layout.node_key(standing.address)
        if standing.standing == "forgotten":
            self._nodes.delete(key)
            return True
        for _ in range(3):
            held = self._nodes.lookup(key, LOCK)
            try:
                self._nodes.update(key, self._merged(held, standing, now), LOCK | (EXIST if held else NOEXIST))
            except MapError as error:
                if error.errno in (errno.E2BIG, errno.ENOMEM):
                    return False
                # The entry was created or removed since the lookup, so try again.
                if error.errno not in (errno.EEXIST, errno.ENOENT):
                    raise
            else:
                return True
        return False

    def _merged(self, held: bytes | None, standing: Standing, now: Now) -> bytes:
        lock, incarnation, highest, window, *said, _, flags, rumors, slot = layout.NODE.unpack(held or _NO_NODE)
        if later(standing.incarnation, incarnation):
            incarnation, highest, window = standing.incarnation, standing.highest, standing.window
        elif standing.incarnation == incarnation:
            highest, window = _merge(highest, window, standing.highest, standing.window)
        clock = now.wall_ns - _ns(now.mono) + _ns(standing.clock_ahead)
        judged = self._standings[standing.standing]
        said[1] = clock
        return layout.NODE.pack(lock, incarnation, highest, window, *said, judged, flags, rumors, slot)

    # -- what happened -----------------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """All counters, summed over the processors."""
        return self._totals.all()

    def counter(self, name: str) -> int:
        """One counter, summed over the processors. Raises ``ValueError`` for an unknown name."""
        return self._totals.one(name)

    def consume(self, take: Callable[[bytes], None], most: int) -> int:
        """Pass up to ``most`` records of the ring buffer to ``take``.

        Returns the number of records that were passed.
        """
        return self._events.consume(take, most)


_INDEX = bytes(4)
_KEYS = struct.Struct(f"={layout.NODE_KEY.size}s")
_NO_NODE = bytes(layout.NODE.size)


def open_plane(
    directory: Path,
    protocol: str,
    own: Address,
    cluster: int,
    amount: int,
    wide: int,
    keys: Sequence[tuple[int, bytes]],
    active: int,
    allow: Mapping[tuple[int, bytes], bool],
) -> DataPlane:
    """Open the loaded data plane, claim it for this node, and write the keys and allowed sources.

    ``keys``: pairs of key id and MAC key (16 bytes). ``active``: id of the key that signs this node's packets. Raises
    ``PlaneError``.
    """
    plane = DataPlane(directory, Loaded.read(directory, protocol), own, cluster, amount, wide)
    try:
        plane.take_over(time.monotonic())
        plane.write_keys(keys, active)
        plane.write_allow(allow)
    except OSError as error:
        plane.close()
        raise PlaneError(_words(error)) from None
    except PlaneError:
        plane.close()
        raise
    return plane


def _merge(highest: int, window: int, other: int, bits: int) -> tuple[int, int]:
    """Merge two replay windows of the same incarnation into one, as core/members/window.py does.

    ``highest`` and ``window`` describe the first window, ``other`` and ``bits`` describe the second window; each window
    has 64 bits.
    """
    if other > highest:
        return other, (window << min(other - highest, 64) | bits) & _MASK
    return highest, (window | bits << min(highest - other, 64)) & _MASK


def _bound(address: Address) -> bool:
    """Whether a process on this host receives datagrams at ``address``."""
    family = socket.AF_INET6 if ":" in address.ip else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.bind((address.ip, address.port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _words(error: OSError) -> str:
    if isinstance(error, MapError) or not error.filename:
        return error.strerror or str(error)
    return f"{error.filename}: {error.strerror}"


def _hint(error: OSError) -> str:
    if error.errno == errno.EACCES:
        return f" (uid {os.geteuid()}); {_UP} --user USER hands them to the agent's user"
    if error.errno == errno.EPERM:
        return "; the kernel refuses it without CAP_BPF: xdp-gossip doctor (as root)"
    if error.errno in (errno.ENOENT, errno.EPROTO):
        return f"; {_UP} (as root)"
    return ""


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
