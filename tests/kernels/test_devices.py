# SPDX-License-Identifier: MIT
"""virtio_net as hypervisors offer it: which queues, offloads and MTUs native XDP accepts, and what the loader does."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from tests.kernels.distributions import BOOKWORM, TRIXIE, Distribution, kernel, root
from tests.kernels.guest import booted
from tests.kernels.matrix import BOOT_SECONDS
from tests.kernels.network import device, enter, network
from tests.kernels.product import lay_out

pytestmark = pytest.mark.slow

#: TAINT_WARN of include/linux/panic.h.
TAINTED_BY_WARNING = 1 << 9
#: Of QEMU's virtio-net-pci: receive offloads that the guest cannot change, all of them, checksums alone, and none.
_FIXED = "ctrl_guest_offloads=off"
_CHECKSUMS_ALONE = f"{_FIXED},guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off"
MTUS = (1500, 3500, 9000)


@dataclass(frozen=True)
class Case:
    """A device. ``options``: QEMU's; ``load``: what the loader is asked for on it (protocol, MTU).

    ``refused``: what the driver refuses native XDP for, whatever the MTU.
    """

    name: str
    options: str = ""
    queues: int = 1
    refused: str = ""
    load: tuple[tuple[str, int], ...] = ()
    generic: bool = False


AS_IT_COMES = Case("as QEMU has it", load=(("auto", 9000),))
FIXED = Case("fixed offloads", _FIXED, refused="GRO_HW/CSUM", load=(("auto", 1500),), generic=True)
CASES = (
    AS_IT_COMES,
    FIXED,
    Case("fixed checksums", _CHECKSUMS_ALONE, refused="GRO_HW/CSUM"),
    Case("no offloads", f"{_CHECKSUMS_ALONE},guest_csum=off"),
    Case("no merged buffers", "mrg_rxbuf=off"),
    Case("2 queues", queues=2),
    Case("4 queues", queues=4),
)


@pytest.fixture(scope="module", params=[BOOKWORM, TRIXIE], ids=lambda each: each.suite)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One guest with an interface a case; what it saw."""
    distribution: Distribution = request.param
    share = tmp_path_factory.mktemp("devices")
    lay_out(share, "devices.py")
    numbers = range(11, 11 + len(CASES))
    cases = [
        {**asdict(case), "mac": f"52:54:00:58:47:{number:02x}", "mtus": MTUS} for number, case in zip(numbers, CASES)
    ]
    (share / "cases.json").write_text(json.dumps(cases))
    with network():
        cards = [device(number, case.options, case.queues) for number, case in zip(numbers, CASES)]
        # Queues are for processors: with one, a device has no use for two.
        words = ("-smp", "2", *(word for card in cards for word in card))
        inside = (kernel(distribution), root(distribution), share, "python3 devices.py\n")
        with booted(*inside, *words, memory=2048, prefix=enter()) as guest:
            guest.wait(2 * BOOT_SECONDS)
    found: dict[str, Any] = json.loads((share / "devices.json").read_text())
    return found


def test_native_xdp_is_had_where_frames_come_as_they_were_sent(seen: dict[str, Any]) -> None:
    """Queues and buffers do not matter; receive offloads that cannot be switched off do, and frames above a page."""
    for case in CASES:
        for mtu in MTUS:
            told = seen["cases"][case.name][f"native {mtu}"]
            expected = case.refused or ("MTU too large" if mtu > 4096 else "")
            assert bool(told["status"]) is bool(expected), (case.name, mtu, told)
            assert expected in told["says"], (case.name, mtu, told)
            assert not told["tainted"] & TAINTED_BY_WARNING, told


def test_the_next_best_mode_above_a_page(seen: dict[str, Any]) -> None:
    told = seen["cases"][AS_IT_COMES.name]["load auto 9000"]
    assert told["state"]["mode"] == "XDP (generic)", told
    (native,) = told["state"]["reasons"]
    assert native["mode"] == "XDP (native)" and "MTU of 9000" in native["reason"]
    assert "mtu 1500" in native["remedy"]
    assert not told["tainted"] & TAINTED_BY_WARNING


def test_generic_xdp_is_not_tried_where_it_taints_the_kernel(seen: dict[str, Any]) -> None:
    """Without the loader's look at the offload beforehand, the kernel warns, as the last attach shows."""
    told = seen["cases"][FIXED.name]["load auto 1500"]
    assert told["state"]["mode"] == "TC", told
    reasons = {each["mode"]: each for each in told["state"]["reasons"]}
    assert "offload" in reasons["XDP (native)"]["reason"]
    # Without offloads that cannot be changed, checksums among them, the driver takes native XDP, as seen above.
    assert "fixed" in reasons["XDP (native)"]["remedy"] and "guest_csum=off" in reasons["XDP (native)"]["remedy"]
    assert "taint" in reasons["XDP (generic)"]["reason"]
    assert not told["tainted"] & TAINTED_BY_WARNING
    assert seen["generic"][FIXED.name]["tainted"] & TAINTED_BY_WARNING
