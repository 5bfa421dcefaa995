# SPDX-License-Identifier: MIT
"""The program container: a file with the compiled programs, for hosts without a compiler. Pure functions on bytes.

Layout of the file, integers in little-endian order:

- magic (8 bytes), version of the format (u16), zero (u16), length of the manifest (u32), length of the file (u64),
- SHA-256 (32 bytes) of all other bytes of the file,
- the manifest: JSON in ASCII, with sorted keys and without spaces,
- the instructions of the programs, in the order of the manifest.

The instructions are those of the kernel, with two exceptions. In an instruction that loads the address of a map
(BPF_PSEUDO_MAP_FD), the container has the index of the map in the manifest in place of a descriptor. An instruction
that loads a constant of the loader (:data:`CONSTANT`) has the constant's index in :data:`CONSTANTS` in place of the
number. :func:`linked` replaces both.

The same programs always give the same bytes. :func:`parse` trusts nothing: it bounds every size before it allocates
memory, accepts no unknown key and no other spelling of the manifest, and visits every instruction.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

MAGIC = b"XGPROGS\n"
#: Version of the format. A loader reads only its own version.
FORMAT = 1
#: Constants that the loader sets, in the order of their numbers in ``bpf/tables.h``.
CONSTANTS = ("amount", "wide")
#: Kinds of programs; the kinds of XDP differ in the expected attach type.
KINDS = ("XDP", "XDP_DEVMAP", "SCHED_CLS", "RAW_TRACEPOINT")

#: Upper limits: bytes of the file, bytes of the manifest, and numbers of parts, maps, programs and instructions.
MAX_BYTES, MAX_MANIFEST = 4 << 20, 64 << 10
MAX_PARTS, MAX_MAPS, MAX_PROGRAMS, MAX_INSTRUCTIONS = 8, 64, 64, 65536
MAX_MAP_BYTES = 1 << 20

_HEAD = struct.Struct("<8sHHIQ32s")
_SIZE = 8
_INSTRUCTION = struct.Struct("<BBhi")
#: Opcodes (linux/bpf.h): load of a 64-bit number, which fills two instructions; call.
_LOAD_64, _CALL = 0x18, 0x85
#: Values of the source register of _LOAD_64: a plain number, the descriptor of a map (BPF_PSEUDO_MAP_FD), and in
#: containers only a constant of the loader.
NUMBER, MAP, CONSTANT = 0, 1, 15
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_SOURCE = re.compile(r"[a-z][a-z0-9_]{0,31}\.c")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_TEXT = re.compile(r"[ -~]{1,100}")


class ContainerError(Exception):
    """The bytes are not a program container; the message names the place, what was expected and what was found."""


class MapSpec(NamedTuple):
    """A map: ``kind`` is the number of its type, ``key`` and ``value`` are sizes in bytes.

    ``entries`` is 0 if the loader sets the number of entries. ``lock``: the value begins with a ``struct
    bpf_spin_lock``. ``shared``: the loader pins the map, and the agent uses it.
    """

    name: str
    kind: int
    key: int
    value: int
    entries: int
    flags: int
    lock: bool
    shared: bool


class Program(NamedTuple):
    """A program: its ``kind`` (one of :data:`KINDS`) and its instructions of 8 bytes, as in a container."""

    name: str
    kind: str
    code: bytes


class Part(NamedTuple):
    """What was compiled from the file ``source``: programs that may share maps."""

    source: str
    maps: tuple[MapSpec, ...]
    programs: tuple[Program, ...]

    def program(self, name: str) -> Program | None:
        """Return the program with this name; None if there is none."""
        return next((each for each in self.programs if each.name == name), None)


@dataclass(frozen=True)
class Container:
    """All compiled programs.

    ``sources``: digest of the sources from which they were compiled (64 hexadecimal digits). ``layout``: layout of the
    shared maps. ``compiler``: names and versions of the compiler.
    """

    sources: str
    layout: int
    compiler: str
    parts: tuple[Part, ...]

    def part(self, source: str) -> Part | None:
        """Return the part that was compiled from the file ``source``; None if there is none."""
        return next((each for each in self.parts if each.source == source), None)


def checksum(content: bytes) -> str:
    """Return the SHA-256 of a container's file, as ``sha256sum`` prints it."""
    return hashlib.sha256(content).hexdigest()


def pack(container: Container) -> bytes:
    """Return the bytes of a container."""
    parts = []
    code = b""
    for part in container.parts:
        programs = [{"name": each.name, "kind": each.kind, "count": len(each.code) // _SIZE} for each in part.programs]
        parts.append({"source": part.source, "maps": [each._asdict() for each in part.maps], "programs": programs})
        code += b"".join(each.code for each in part.programs)
    manifest = _spelled(
        {
            "sources": container.sources,
            "layout": container.layout,
            "compiler": container.compiler,
            "constants": list(CONSTANTS),
            "parts": parts,
        }
    )
    rest = manifest + code
    fields = (MAGIC, FORMAT, 0, len(manifest), _HEAD.size + len(rest))
    return _HEAD.pack(*fields, _digest(*fields, rest)) + rest


def parse(content: bytes) -> Container:
    """Read a container from its bytes. Raises :class:`ContainerError`."""
    if len(content) > MAX_BYTES:
        raise ContainerError(f"file: expected at most {MAX_BYTES} bytes, got {len(content)}")
    if len(content) < _HEAD.size or content[: len(MAGIC)] != MAGIC:
        raise ContainerError("file: expected a program container of XDP Gossip, got another file")
    magic, version, zero, length, whole, digest = _HEAD.unpack_from(content)
    if version != FORMAT or zero:
        raise ContainerError(f"header: expected version {FORMAT} of the format, got {version}")
    if whole != len(content):
        raise ContainerError(f"header: expected a file of {whole} bytes, got {len(content)}")
    rest = content[_HEAD.size :]
    if _digest(magic, version, zero, length, whole, rest) != digest:
        raise ContainerError("checksum: expected the SHA-256 in the header, got another: the file was changed")
    if length > min(MAX_MANIFEST, len(rest)):
        raise ContainerError(f"header: expected a manifest of at most {min(MAX_MANIFEST, len(rest))}, got {length}")
    return _container(rest[:length], rest[length:])


def linked(code: bytes, maps: Sequence[int], constants: Mapping[str, int]) -> bytes:
    """Return instructions for the kernel: with the descriptors ``maps``, by index, and the values of the constants."""
    found = bytearray(code)
    for at, registers, value in _loads(code):
        source = registers >> 4
        if source == MAP:
            struct.pack_into("<i", found, at + 4, maps[value])
        elif source == CONSTANT:
            number = constants[CONSTANTS[value]]
            _INSTRUCTION.pack_into(found, at, _LOAD_64, registers & 15, 0, _signed(number))
            _INSTRUCTION.pack_into(found, at + _SIZE, 0, 0, 0, _signed(number >> 32))
    return bytes(found)


def portable(code: bytes, maps: Mapping[int, int], placeholder: int) -> bytes:
    """Return the compiler's instructions as a container has them.

    ``maps``: descriptor in the instructions -> index of the map. ``placeholder``: the number that stands for the first
    constant; the following numbers stand for the others. Raises :class:`ContainerError` for an unknown map.
    """
    found = bytearray(code)
    for at, registers, value in _loads(code):
        number = value & 0xFFFFFFFF | _INSTRUCTION.unpack_from(code, at + _SIZE)[3] << 32
        if registers >> 4 == MAP:
            if value not in maps:
                raise ContainerError(
                    f"instruction {at // _SIZE}: expected a map of the sources, got descriptor {value}"
                )
            struct.pack_into("<i", found, at + 4, maps[value])
        elif registers >> 4 == NUMBER and number - placeholder in range(len(CONSTANTS)):
            _INSTRUCTION.pack_into(found, at, _LOAD_64, registers | CONSTANT << 4, 0, number - placeholder)
            _INSTRUCTION.pack_into(found, at + _SIZE, 0, 0, 0, 0)
    return bytes(found)


def helpers(code: bytes) -> set[int]:
    """Return the ids of the BPF helpers that the instructions call."""
    return {value for _, opcode, registers, value in _instructions(code) if opcode == _CALL and not registers >> 4}


def _signed(number: int) -> int:
    return (number & 0xFFFFFFFF ^ 1 << 31) - (1 << 31)


def _instructions(code: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield offset in bytes, opcode, registers and immediate value of each instruction, without second halves."""
    at = 0
    while at < len(code):
        opcode, registers, _, value = _INSTRUCTION.unpack_from(code, at)
        yield at, opcode, registers, value
        at += 2 * _SIZE if opcode == _LOAD_64 else _SIZE


def _loads(code: bytes) -> Iterator[tuple[int, int, int]]:
    for at, opcode, registers, value in _instructions(code):
        if opcode == _LOAD_64:
            yield at, registers, value


def _spelled(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode("ascii")


def _digest(magic: bytes, version: int, zero: int, length: int, whole: int, rest: bytes) -> bytes:
    return hashlib.sha256(_HEAD.pack(magic, version, zero, length, whole, bytes(32)) + rest).digest()


def _container(manifest: bytes, code: bytes) -> Container:
    try:
        given = json.loads(manifest.decode("ascii"))
        spelled = _spelled(given)
    except (ValueError, RecursionError, TypeError) as error:
        raise ContainerError(f"manifest: expected JSON in ASCII, got {type(error).__name__}") from None
    if spelled != manifest:
        raise ContainerError("manifest: expected sorted keys and no spaces, got another spelling")
    top = _Section("manifest", given, ("sources", "layout", "compiler", "constants", "parts"))
    if top.items("constants", len(CONSTANTS)) != list(CONSTANTS):
        raise ContainerError(f"manifest: constants: expected {list(CONSTANTS)}, got others")
    parts = []
    at = 0
    for number, each in enumerate(top.items("parts", MAX_PARTS)):
        part, at = _part(f"part {number}", each, code, at)
        parts.append(part)
    if at != len(code):
        raise ContainerError(f"instructions: expected {at} bytes, as the manifest states, got {len(code)}")
    _once("manifest: parts", [each.source for each in parts])
    _once("manifest: programs", [program.name for each in parts for program in each.programs])
    return Container(
        top.text("sources", _DIGEST), top.number("layout", 0xFFFF), top.text("compiler", _TEXT), tuple(parts)
    )


def _part(where: str, given: Any, code: bytes, at: int) -> tuple[Part, int]:
    """Read a part whose instructions begin at ``at``. Returns the part and the end of its instructions."""
    top = _Section(where, given, ("source", "maps", "programs"))
    maps = [_map(f"{where}: map {n}", each) for n, each in enumerate(top.items("maps", MAX_MAPS))]
    _once(f"{where}: maps", [each.name for each in maps])
    programs = []
    for number, each in enumerate(top.items("programs", MAX_PROGRAMS)):
        section = _Section(f"{where}: program {number}", each, ("name", "kind", "count"))
        kind = section.text("kind", _TEXT)
        if kind not in KINDS:
            raise ContainerError(f"{section.where}: kind: expected one of {', '.join(KINDS)}, got {kind}")
        end = at + _SIZE * section.number("count", MAX_INSTRUCTIONS, least=1)
        name = section.text("name", _NAME)
        if end > len(code):
            raise ContainerError(f"program {name}: expected {end - at} bytes of instructions, got {len(code) - at}")
        programs.append(Program(name, kind, code[at:end]))
        _check_code(programs[-1], len(maps))
        at = end
    return Part(top.text("source", _SOURCE), tuple(maps), tuple(programs)), at


def _map(where: str, given: Any) -> MapSpec:
    top = _Section(where, given, MapSpec._fields)
    return MapSpec(
        top.text("name", _NAME),
        top.number("kind", 255, least=1),
        top.number("key", MAX_MAP_BYTES),
        top.number("value", MAX_MAP_BYTES),
        top.number("entries", 1 << 24),
        top.number("flags", 0xFFFFFFFF),
        top.flag("lock"),
        top.flag("shared"),
    )


def _check_code(program: Program, maps: int) -> None:
    """Raise :class:`ContainerError` if an instruction refers to something that the container does not have."""
    limits = {MAP: maps, CONSTANT: len(CONSTANTS)}
    for at, opcode, registers, value in _instructions(program.code):
        where = f"program {program.name}: instruction {at // _SIZE}"
        source = registers >> 4
        if opcode == _CALL and source:
            raise ContainerError(f"{where}: expected the call of a helper, got another call")
        if opcode != _LOAD_64:
            continue
        if at + 2 * _SIZE > len(program.code):
            raise ContainerError(f"{where}: expected a second half, got the end of the program")
        if source == NUMBER:
            continue
        if source not in limits:
            raise ContainerError(f"{where}: expected a number, a map or a constant, got source register {source}")
        if not 0 <= value < limits[source] or any(program.code[at + _SIZE : at + 2 * _SIZE]):
            raise ContainerError(f"{where}: expected an index below {limits[source]}, got {value}")


def _once(where: str, names: Sequence[str]) -> None:
    if len(set(names)) != len(names):
        raise ContainerError(f"{where}: expected each name once, got {', '.join(names)}")


class _Section:
    """A JSON object of the manifest that must have exactly the keys ``keys``. Raises :class:`ContainerError`."""

    def __init__(self, where: str, given: Any, keys: Sequence[str]) -> None:
        self.where = where
        if type(given) is not dict or set(given) != set(keys):
            raise ContainerError(f"{where}: expected an object with the keys {', '.join(keys)}, got another value")
        self._given = given

    def text(self, key: str, pattern: re.Pattern[str]) -> str:
        """Return a string that matches ``pattern`` completely."""
        value = self._given[key]
        if type(value) is not str or not pattern.fullmatch(value):
            raise ContainerError(f"{self.where}: {key}: expected text like {pattern.pattern}, got {value!r:.40}")
        return value

    def number(self, key: str, most: int, least: int = 0) -> int:
        """Return an integer from ``least`` to ``most``."""
        value = self._given[key]
        if type(value) is not int or not least <= value <= most:
            raise ContainerError(f"{self.where}: {key}: expected {least} to {most}, got {value!r:.40}")
        return value

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self._given[key]
        if type(value) is not bool:
            raise ContainerError(f"{self.where}: {key}: expected true or false, got {value!r:.40}")
        return value

    def items(self, key: str, most: int) -> list[Any]:
        """Return a list of at most ``most`` values."""
        value = self._given[key]
        if type(value) is not list or len(value) > most:
            raise ContainerError(f"{self.where}: {key}: expected a list of at most {most}, got another value")
        return value
