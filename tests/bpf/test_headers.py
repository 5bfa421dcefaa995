# SPDX-License-Identifier: MIT
"""Each header of the data plane includes what it uses: it compiles alone, with the compiler and flags of the loader."""

from __future__ import annotations

import os

import pytest

from xdp_gossip.dataplane import headers
from xdp_gossip.dataplane.loader.compile import include_directories

HEADERS = sorted(path.name for path in headers.directory().glob("*.h"))


def test_there_are_headers() -> None:
    assert {"parse.h", "receive.h", "tables.h", "tc.h", "xdp.h"} <= set(HEADERS)


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_compiles_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import bcc  # type: ignore[import-not-found,unused-ignore]

    root = headers.directory()
    monkeypatch.setitem(os.environ, "BCC_KERNEL_SOURCE", str(root / "kshim"))
    flags = [f"-I{path}" for path in (root / "kshim" / "include", root, *include_directories())]
    # A function that is called and declared nowhere would be one of an unknown kind, by the rules of older C.
    bcc.BPF(text=f'#include "{name}"\n'.encode(), cflags=[*flags, "-Werror=implicit-function-declaration"])
