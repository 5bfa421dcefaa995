# SPDX-License-Identifier: MIT
"""Contents that are made to hurt whoever parses them, and others that are only broken: the same ones for each seed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator


def contents(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """So many pairs of content type and value."""
    dice = random.Random(seed)
    makers = (_merges, _aliases, _deep, _numbers, _scalars, _tags, _keys, _broken, _bytes, _many)
    for _ in range(count):
        yield dice.choice(makers)(dice)


def _merges(dice: random.Random) -> tuple[str, bytes]:
    """Merge keys that multiply."""
    width, levels = dice.choice(((2, 30), (10, 9), (40, 5), (3, 12)))
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels + 1)]
    return "yaml", "\n".join(lines).encode()


def _aliases(dice: random.Random) -> tuple[str, bytes]:
    """Lists of lists of one list; and one that contains itself."""
    if dice.random() < 0.2:
        return "yaml", dice.choice((b"&a [*a, *a]", b"&a {k: *a}", b"a: &a\n  <<: *a", b"- &a [1]\n- {<<: *a}"))
    levels = dice.randrange(3, 40)
    lines = ["a0: &a0 [x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "yaml", "\n".join(lines).encode()


def _deep(dice: random.Random) -> tuple[str, bytes]:
    levels = dice.choice((100, 199, 201, 990, 5000, 100_000))
    pairs = ((b"[", b"]"), (b'{"a":', b"}"), (b"{a: ", b"}"), (b"- ", b""), (b'{"a": [', b"]}"))
    kind, (begin, end) = dice.choice(("json", "yaml")), dice.choice(pairs)
    return kind, begin * levels + b"1" + end * dice.choice((levels, levels - 1, 0))


def _numbers(dice: random.Random) -> tuple[str, bytes]:
    digits = b"9" * dice.choice((20, 4299, 4301, 60_000))
    forms = (digits, b"-" + digits, b"1e" + digits, b"0." + digits, b"0x" + digits, b"1_" + digits, b"0b" + b"1" * 9999)
    number = dice.choice((*forms, b"1:" * 5000 + b"1", b"NaN", b"Infinity", b".inf", b"1e99999"))
    return dice.choice((("json", b"[" + number + b"]"), ("yaml", b"a: " + number)))


def _scalars(dice: random.Random) -> tuple[str, bytes]:
    long = dice.choice((b"x", b" ", b"\\", b"'", b'"', b"\xc3\xa9", b"\t", b"#", b"- ", b": ", b"? ", b"\n"))
    text = long * dice.choice((10, 1000, 65_536))
    around = dice.choice(((b"", b""), (b'"', b'"'), (b"'", b"'"), (b"|\n ", b""), (b">-\n ", b""), (b"a: ", b"")))
    return dice.choice(("yaml", "json", "text")), around[0] + text + around[1]


def _tags(dice: random.Random) -> tuple[str, bytes]:
    tag = dice.choice(
        (
            *(b"!!python/object/apply:os.system ['touch /tmp/never']", b"!!python/name:os.system", b"!foo bar"),
            *(b"!!binary '%%%'", b"!!timestamp 2024-99-99", b"2024-02-31", b"2024-01-01 99:99:99", b"!!int x"),
            *(b"!!set [a]", b"!!omap {a: 1}", b"!!pairs [1]", b"!!merge x", b"!!null x", b"!!bool maybe", b"!" * 9000),
            *(b"%TAG ! tag:x,2000:\n--- !a b", b"%YAML 9.9\n--- a", b"!<" + b"x" * 9000 + b"> y"),
        )
    )
    return "yaml", tag if tag.startswith(b"%") else b"a: " + tag


def _keys(dice: random.Random) -> tuple[str, bytes]:
    """Twice the same key, or keys that are no text."""
    count = dice.choice((2, 5000))
    pairs = [f'"k{number % (count - 1)}": {number}' for number in range(count)]
    dice.shuffle(pairs)
    text = dice.choice(("{" + ", ".join(pairs) + "}", "{[1, 2]: 3}", "? {a: b}\n: c", "{{a: 1}: 2}", '{"": 1, "": 2}'))
    return dice.choice(("json", "yaml")), text.encode()


def _broken(dice: random.Random) -> tuple[str, bytes]:
    """A good text with some bytes changed."""
    servers = [{"name": f"n{n}", "port": n, "tags": ["a", None, 1.5, True]} for n in range(dice.randrange(200))]
    value = {"servers": servers}
    text = bytearray(json.dumps(value, indent=dice.choice((None, 2))).encode())
    for _ in range(dice.randrange(1, 20)):
        at = dice.randrange(len(text))
        change = dice.randrange(3)
        if change == 0:
            text[at] = dice.randrange(256)
        elif change == 1:
            del text[at : at + dice.randrange(1, 10)]
        else:
            text[at:at] = dice.choice((b"\x00", b"\xff", b"&a ", b"*a ", b"<<: ", b"{", b"]", b"\n", b"---\n"))
        text = text or bytearray(b"x")
    return dice.choice(("json", "yaml", "text")), bytes(text)


def _bytes(dice: random.Random) -> tuple[str, bytes]:
    return dice.choice(("json", "yaml", "text")), dice.randbytes(dice.choice((0, 1, 100, 20_000)))


def _many(dice: random.Random) -> tuple[str, bytes]:
    """Very many small things."""
    piece = dice.choice((b"[],", b"{},", b"1,", b'"",', b"a: 1\n", b"- a\n", b"---\n", b"# x\n", b"&a a,", b"? a\n"))
    count = dice.choice((1000, 20_000, 150_000))
    return dice.choice(("json", "yaml")), b"[" * (piece.endswith(b",")) + piece * count
