# SPDX-License-Identifier: MIT
"""Two virtual machines with Debian 12's stock kernel, joined by virtio-net, are members of one fleet."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.distributions import BOOKWORM, TRIXIE, Distribution, kernel, root
from tests.kernels.guest import Guest, booted
from tests.kernels.matrix import BOOT_SECONDS
from tests.kernels.network import OUTSIDE, device, enter, network
from tests.kernels.product import AHEAD, compile_ahead, lay_out
from tests.support.fleet import Agent

#: Name of the run, protocol, MTU. virtio_net refuses native XDP where a frame is longer than a page.
NATIVE = ("native", "auto", "1500")
TC = ("tc", "TC", "1500")
GENERIC = ("generic", "XDP", "9000")
MODES = {"native": "XDP (native)", "tc": "TC", "generic": "XDP (generic)"}
GUESTS = (1, 2)
#: TAINT_WARN of include/linux/panic.h.
TAINTED_BY_WARNING = 1 << 9


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Agent]:
    """A third member, on this machine's kernel and over UDP: what one guest relays goes to it or to the other guest."""
    with network():
        settings = {"secret_key_file": str(tmp_path / "secret"), "cycle": 2, "listen_addr": "0.0.0.0"}
        (tmp_path / "secret").write_text("the secret of the guests\n")
        (tmp_path / "secret").chmod(0o600)
        agent = Agent(tmp_path / "outside", 100, OUTSIDE, 8000, settings)
        agent.prefix = enter()
        agent.start()
        try:
            yield agent
        finally:
            print(agent.log_tail())
            agent.kill()


@contextlib.contextmanager
def guests(
    distribution: Distribution, modes: Sequence[tuple[str, str, str]], directory: Path, ahead: bool
) -> Iterator[list[Guest]]:
    """Both of them, booted with the product in their share. ``ahead``: they need not compile."""
    with contextlib.ExitStack() as stack:
        made = []
        for number in GUESTS:
            share = directory / f"guest{number}"
            share.mkdir()
            lay_out(share, "host.py")
            if ahead:
                compile_ahead(share, distribution)
            (share / "modes.json").write_text(json.dumps(modes))
            how = booted(
                kernel(distribution),
                root(distribution),
                share,
                f"{AHEAD if ahead else ''}python3 host.py {number}\n",
                *device(number),
                memory=2048,
                prefix=enter(),
            )
            made.append(stack.enter_context(how))
        yield made


def check(seen: dict[str, Any], mode: str) -> None:
    """Status, the data plane's status and doctor say the mode that works, and the kernel has done the work."""
    assert seen["status"]["mode"] == mode, seen["up"]
    plane = seen["dataplane"]
    assert plane["up"] and plane["mode"] == mode
    counted = plane["counters"]
    for name in ("take_heartbeat", "take_metadata", "news", "relay", "copy", "fanout", "fanout_copy"):
        assert counted[name] > 0, (name, counted)
    assert counted["drop_bad_mac"] == counted["copy_lost"] == counted["relay_failed"] == 0
    assert f"{mode} on eth0" in seen["doctor"]
    assert not seen["tainted"] & TAINTED_BY_WARNING, seen["dmesg"]


def run(
    distribution: Distribution,
    outside: Agent,
    modes: Sequence[tuple[str, str, str]],
    directory: Path,
    ahead: bool = False,
) -> None:
    """Every mode in turn; what each guest has published is held outside."""
    with guests(distribution, modes, directory, ahead) as made:
        for name, _, _ in modes:
            found = [json.loads(guest.written(f"{name}.json", BOOT_SECONDS)) for guest in made]
            for number, seen in zip(GUESTS, found):
                print(f"guest {number}, {name}: {seen['up']}{seen['doctor']}{seen['dataplane'].get('counters')}")
                print(f"stepped down: {seen['stepped_down']}")
            for number, seen in zip(GUESTS, found):
                check(seen, MODES[name])
                assert outside.read(f"from/{number}/{name}") == name.encode()
            for guest in made:
                (guest.share / f"{name}.go").touch()
        for guest in made:
            guest.wait(BOOT_SECONDS)


def test_native_xdp_on_debian_12(outside: Agent, tmp_path: Path) -> None:
    """With a program container, and without BCC; the guests of ``test_all_modes`` compile their programs."""
    run(BOOKWORM, outside, [NATIVE], tmp_path, ahead=True)


@pytest.mark.slow
@pytest.mark.parametrize("distribution", [BOOKWORM, TRIXIE], ids=lambda each: each.suite)
def test_all_modes(outside: Agent, tmp_path: Path, distribution: Distribution) -> None:
    """TC is attached by clsact before Linux 6.6, by TCX since."""
    run(distribution, outside, [NATIVE, TC, GENERIC], tmp_path)
