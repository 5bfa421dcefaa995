# SPDX-License-Identifier: MIT
"""Debian 11's kernel, 5.10, cannot have the data plane: the product says so and works over UDP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kernels.distributions import BOOKWORM, BULLSEYE, kernel, root
from tests.kernels.guest import booted
from tests.kernels.matrix import BOOT_SECONDS
from tests.kernels.product import lay_out

#: What 5.10 calls bpf_ktime_get_coarse_ns, which came with 5.11.
UNKNOWN = "#160"


@pytest.mark.slow
def test_5_10_is_refused_and_told(tmp_path: Path) -> None:
    """The loader, its status, doctor and the agent name the program and the kernel's reason."""
    share = tmp_path / "guest"
    lay_out(share, "devices.py", "refusal.py")
    with booted(kernel(BULLSEYE), root(BOOKWORM), share, "python3 refusal.py\n", memory=2048) as guest:
        guest.wait(BOOT_SECONDS)
    seen = json.loads((share / "refusal.json").read_text())
    print(json.dumps(seen, indent=1))
    assert seen["status"] != 0
    assert not seen["state"]["up"]
    for text in (seen["says"], json.dumps(seen["state"]["reasons"]), seen["doctor"]):
        assert UNKNOWN in text, text
    assert seen["agent"]["mode"] == "UDP"
    assert UNKNOWN in json.dumps(seen["agent"]), seen["agent"]
