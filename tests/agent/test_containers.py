# SPDX-License-Identifier: MIT
"""Program containers: what is packed is read again, and everything else is refused before the kernel sees any of it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from containing import CODE, EXIT, call, made, wide
from hypothesis import given, settings
from hypothesis import strategies as st

from xdp_gossip.dataplane import headers
from xdp_gossip.dataplane.loader import compile, container, errors, loading, maps, stock
from xdp_gossip.dataplane.loader.container import CONSTANT, MAP, NUMBER, ContainerError, MapSpec, Part
from xdp_gossip.dataplane.loader.programs import SOURCES

PLACEHOLDER = headers.constants()["XG_PLACEHOLDER"]
HEAD = 56


WHOLE = container.pack(made())
#: A map of which nobody says how many entries it has.
UNSIZED = MapSpec("first", 2, 4, 8, 0, 0, False, False)


def sealed(manifest: bytes, code: bytes) -> bytes:
    """A file with this manifest and a right checksum."""
    head = (container.MAGIC, container.FORMAT, 0, len(manifest), HEAD + len(manifest) + len(code))
    digest = hashlib.sha256(struct.pack("<8sHHIQ32s", *head, bytes(32)) + manifest + code).digest()
    return struct.pack("<8sHHIQ32s", *head, digest) + manifest + code


def split(content: bytes) -> tuple[bytes, bytes]:
    """Manifest and instructions."""
    length = struct.unpack_from("<I", content, 12)[0]
    return content[HEAD : HEAD + length], content[HEAD + length :]


def test_what_is_packed_is_read_again() -> None:
    assert container.parse(WHOLE) == made()
    assert container.pack(container.parse(WHOLE)) == WHOLE
    assert sealed(*split(WHOLE)) == WHOLE
    assert container.checksum(WHOLE) == hashlib.sha256(WHOLE).hexdigest()


def test_a_changed_byte_anywhere_is_refused() -> None:
    for at in range(len(WHOLE)):
        changed = bytearray(WHOLE)
        changed[at] ^= 1 << at % 8
        with pytest.raises(ContainerError):
            container.parse(bytes(changed))


def test_a_part_of_the_file_and_more_than_the_file_are_refused() -> None:
    for content in (*(WHOLE[:length] for length in range(len(WHOLE))), WHOLE + b"x"):
        with pytest.raises(ContainerError):
            container.parse(content)
    with pytest.raises(ContainerError, match="at most"):
        container.parse(bytes(container.MAX_BYTES + 1))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_forged_file_with_a_right_checksum_is_refused_or_means_what_it_says(data: st.DataObject) -> None:
    """Whoever changes a file can compute its checksum, so the parser must bear any manifest and any instructions."""
    manifest, code = split(WHOLE)
    part = data.draw(st.sampled_from(("manifest", "code", "both")))
    if part != "code":
        manifest = mutated(data, manifest)
    if part != "manifest":
        code = mutated(data, code)
    content = sealed(manifest, code)
    try:
        found = container.parse(content)
    except ContainerError:
        return
    assert container.pack(found) == content
    for each in found.parts:
        for program in each.programs:
            container.linked(program.code, range(len(each.maps)), {"amount": 1, "wide": 2})


def mutated(data: st.DataObject, content: bytes) -> bytes:
    """A few bytes replaced, removed or inserted."""
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(changed)))
        end = min(len(changed), start + data.draw(st.integers(0, 12)))
        changed[start:end] = data.draw(st.binary(max_size=12))
    return bytes(changed)


def in_manifest(change: Callable[[dict[str, Any]], object]) -> bytes:
    """The file with a changed manifest, spelled as a container spells it."""
    manifest, code = split(WHOLE)
    given = json.loads(manifest)
    change(given)
    return sealed(json.dumps(given, sort_keys=True, separators=(",", ":")).encode(), code)


def in_map(**changes: Any) -> bytes:
    """The file whose first map has other properties."""
    return in_manifest(lambda given: given["parts"][0]["maps"][0].update(changes))


def in_code(code: bytes) -> bytes:
    """The file whose programs have other instructions."""
    programs = tuple(container.Program(*each, code) for each in SOURCES["dataplane.c"].items())
    return container.pack(made(parts=(made().parts[0]._replace(programs=programs), made().parts[1])))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "got another file"),
        (b"\x7fELF" + bytes(200), "got another file"),
        (sealed(b"", b""), "manifest: expected JSON"),
        (sealed(b"[" * 60000, b""), "manifest: expected JSON"),
        (sealed(b"\xff", b""), "manifest: expected JSON"),
        (sealed(b"[]", b""), "manifest: expected an object with the keys"),
        (sealed(b" {}", b""), "got another spelling"),
        (sealed(b'{"a":1,"a":1}', b""), "got another spelling"),
        (sealed(b"1" * (container.MAX_MANIFEST + 1), b""), "header: expected a manifest of at most"),
        (in_manifest(lambda given: given.update(more=1)), "manifest: expected an object with the keys"),
        (in_manifest(lambda given: given.update(constants=["amount"])), "constants: expected"),
        (in_manifest(lambda given: given.update(layout=True)), "layout: expected 0 to 65535, got True"),
        (in_manifest(lambda given: given.update(sources="ab")), "sources: expected text like"),
        (in_manifest(lambda given: given.update(parts=[1] * 9)), "parts: expected a list of at most 8"),
        (in_manifest(lambda given: given["parts"].append(given["parts"][0])), "expected 0 to|got 0|each name once"),
        (in_manifest(lambda given: given["parts"][0]["programs"].pop()), "instructions: expected"),
        (in_manifest(lambda given: given["parts"][0]["programs"][0].update(kind="KPROBE")), "kind: expected one of"),
        (in_manifest(lambda given: given["parts"][0]["programs"][0].update(count=0)), "count: expected 1 to"),
        (in_manifest(lambda given: given["parts"][0]["programs"][0].update(name="../x")), "name: expected text"),
        (in_manifest(lambda given: given["parts"][0].update(source="/etc/x.c")), "source: expected text"),
        (in_map(name="nodes"), "part 0: maps: expected each name once"),
        (in_map(value=1 << 21), "part 0: map 0: value: expected 0 to"),
        (in_map(entries=-1), "part 0: map 0: entries: expected 0 to"),
        (in_map(entries=1.0), "part 0: map 0: entries: expected 0 to"),
        (in_map(lock=1), "part 0: map 0: lock: expected true or false"),
        (in_code(wide(MAP, 2) + EXIT), "instruction 0: expected an index below 2, got 2"),
        (in_code(EXIT + wide(MAP, -1) + EXIT), "instruction 1: expected an index below 2, got -1"),
        (in_code(wide(MAP, 1, 1) + EXIT), "expected an index below 2"),
        (in_code(wide(CONSTANT, 2) + EXIT), "instruction 0: expected an index below 2, got 2"),
        (in_code(wide(2, 0) + EXIT), "got source register 2"),
        (in_code(call(1, 1) + EXIT), "expected the call of a helper"),
        (in_code(EXIT + wide(NUMBER, 1)[:8]), "expected a second half"),
    ],
)  # fmt: skip
def test_the_place_and_what_was_expected_are_named(content: bytes, told: str) -> None:
    with pytest.raises(ContainerError, match=told):
        container.parse(content)


def test_the_loader_puts_in_descriptors_and_constants() -> None:
    linked = container.linked(CODE, [30, 31], {"amount": 4, "wide": 0x1_8000_0002})
    assert linked == wide(MAP, 31) + wide(NUMBER, -(1 << 31) + 2, 1) + wide(NUMBER, -5, 7) + call(1) + EXIT
    upper, lower = PLACEHOLDER >> 32, (PLACEHOLDER & 0xFFFFFFFF) + 1
    compiled = wide(MAP, 17) + wide(NUMBER, lower, upper) + wide(NUMBER, -5, 7) + call(1) + EXIT
    assert container.portable(compiled, {17: 1, 9: 0}, PLACEHOLDER) == CODE
    with pytest.raises(ContainerError, match="got descriptor 17"):
        container.portable(compiled, {9: 0}, PLACEHOLDER)
    # The numbers beside the placeholders are numbers.
    for other in (PLACEHOLDER - 1, PLACEHOLDER + len(container.CONSTANTS)):
        code = wide(NUMBER, other & 0xFFFFFFFF, other >> 32)
        assert container.portable(code, {}, PLACEHOLDER) == code
    assert container.helpers(CODE) == {1}


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the program container; the sources are those of this tree."""
    for name in ("wire.h", "maps.h", "counters.h"):
        (tmp_path / name).write_bytes((headers.directory() / name).read_bytes())
    monkeypatch.setenv(headers.DIRECTORY_VARIABLE, str(tmp_path))
    monkeypatch.setattr(compile, "missing", lambda: [("BCC is missing", "install it")])
    return tmp_path / stock.NAME


def test_a_container_that_fits_needs_no_compiler(beside: Path) -> None:
    content = container.pack(made(sources=headers.sources_digest()))
    beside.write_bytes(content)
    found = stock.Stock()
    assert (found.lacking(), found.unfit, found.tools) == ([], None, {})
    assert found.checksum == hashlib.sha256(content).hexdigest()
    assert found.part("selftest.c") == made().parts[1]
    assert found.toolchain == f"kernel {os.uname().release}, BCC 1, LLVM 2"


def test_without_container_and_compiler_the_reason_is_told(beside: Path) -> None:
    assert stock.Stock().lacking() == [("BCC is missing", "install it")]
    with pytest.raises(errors.LoaderError, match="BCC is missing"):
        stock.Stock().part("dataplane.c")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"layout": 1}, "layout: expected the maps of layout"),
        ({"sources": "ab" * 32}, "sources: expected programs of the sources .*belongs to another release"),
        ({"parts": made().parts[:1]}, "parts: expected the programs xg_xdp_ingress"),
        ({"parts": made().parts[::-1]}, ""),
        (
            {"parts": tuple(part._replace(maps=(UNSIZED, *part.maps[1:])) for part in made().parts)},
            "maps: expected a number of entries, got none for first",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_by_name(beside: Path, changes: dict[str, Any], told: str) -> None:
    beside.write_bytes(container.pack(made(**{"sources": headers.sources_digest(), **changes})))
    found = stock.Stock()
    if not told:
        assert found.unfit is None
        return
    with pytest.raises(errors.LoaderError, match=told):
        found.part("dataplane.c")
    assert found.unfit is not None and str(beside) in found.unfit.reason
    assert "dataplane build" in found.unfit.remedy and found.checksum == ""
    assert len(found.lacking()) == 2


def spoilt(path: Path) -> None:
    """A changed byte."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def as_link(path: Path) -> None:
    """A symbolic link in the file's place."""
    path.rename(path.with_name("other"))
    path.symlink_to("other")


def as_directory(path: Path) -> None:
    """A directory in the file's place."""
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (spoilt, "checksum: expected the SHA-256 in the header, got another"),
        (as_link, "expected a regular file, got a symbolic link"),
        (as_directory, "expected a regular file, got something else"),
        (lambda path: path.chmod(0o666), "only root can write, got .* with mode 0666"),
        (lambda path: path.chmod(0o664), "only root can write, got .* with mode 0664"),
        (lambda path: path.parent.chmod(0o777), "only root can write, got .* with mode 0777"),
    ],
)
def test_a_file_that_somebody_could_have_changed_is_refused(
    beside: Path, change: Callable[[Path], None], told: str
) -> None:
    beside.write_bytes(container.pack(made(sources=headers.sources_digest())))
    change(beside)
    with pytest.raises(stock.Unfit, match=told):
        stock.read()
    assert stock.Stock().unfit is not None


def test_a_compiler_takes_the_place_of_a_container_that_does_not_fit(
    beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beside.write_bytes(b"something else")
    monkeypatch.setattr(compile, "missing", list)
    monkeypatch.setattr(compile, "part", lambda source: ("compiled", source))
    found = stock.Stock()
    assert found.part("dataplane.c") == ("compiled", "dataplane.c")
    assert found.unfit is not None and found.lacking() == [] and found.checksum == ""


def test_the_sizes_that_the_loader_sets_are_known() -> None:
    assert set(maps.SIZED) <= set(maps.expected(1))
    assert [name for name in maps.expected(1) if maps.expected(1)[name] != maps.expected(2)[name]] == list(maps.SIZED)


@pytest.mark.parametrize(
    ("number", "lines", "remembered"),
    [
        (errno.EACCES, ["R1 invalid mem access", "processed 9 insns"], True),
        (errno.EINVAL, [], True),
        (errno.EACCES, [], False),  # SELinux
        (errno.EPERM, [], False),
        (errno.ENOMEM, ["1: (95) exit", "processed 9 insns"], False),
        (524, ["1: (95) exit", "processed 9 insns"], False),
        (errno.EAGAIN, [], False),
    ],
)
def test_only_what_the_verifier_says_is_remembered(number: int, lines: list[str], remembered: bool) -> None:
    programs = loading.Programs(Part("x.c", (), ()), "a compiler", {}, {})
    found = programs._why_not_loaded("xg_x", number, "a cause", lines)
    assert isinstance(found, errors.Rejected) is remembered
    assert found.reason.startswith("xg_x: ") and (not remembered or "a compiler" in found.reason)
