# SPDX-License-Identifier: MIT
"""Each variable of the role ``agent`` that is a setting, or part of the unit, shows in the file that is written."""

from __future__ import annotations

import os

import pytest
import yaml
from test_role_agent_runs import Controller, controller, pytestmark  # noqa: F401  (the same needs)
from test_role_agent_templates import config, write

#: Variable -> value that is not its default, and where it stands in agent.yml.
VARIABLES = {
    "xdp_gossip_agent_cluster": ("other", ["cluster"]),
    "xdp_gossip_agent_port": (9100, ["node", "port"]),
    "xdp_gossip_agent_name": ("somebody", ["node", "name"]),
    "xdp_gossip_agent_private_data": ("rack 7", ["node", "private_data"]),
    "xdp_gossip_agent_zone": ("fra-1.a", ["zone"]),
    "xdp_gossip_agent_protocol": ("TCP", ["protocol"]),
    "xdp_gossip_agent_wire": ("native", ["wire"]),
    "xdp_gossip_agent_amount": (7, ["amount"]),
    "xdp_gossip_agent_cycle": (2.5, ["cycle"]),
    "xdp_gossip_agent_timeout": (70.5, ["timeout"]),
    "xdp_gossip_agent_buffer": (77, ["buffer"]),
    "xdp_gossip_agent_size": (20000, ["size"]),
    "xdp_gossip_agent_max_clock_drift": (7.5, ["max_clock_drift"]),
    "xdp_gossip_agent_seeds": (["198.18.0.99:8000"], ["seeds"]),
    "xdp_gossip_agent_log_level": ("debug", ["log", "level"]),
    "xdp_gossip_agent_log_format": ("json", ["log", "format"]),
    "xdp_gossip_agent_is_print": (True, ["is_print"]),
    "xdp_gossip_agent_history": (3, ["history"]),
    "xdp_gossip_agent_tombstone_grace": (7200, ["tombstone_grace"]),
    "xdp_gossip_agent_api_ui": (True, ["api", "ui"]),
    "xdp_gossip_agent_api_tokens": (
        [{"name": "ci", "hash": f"sha256:{'0' * 64}", "rights": "write", "prefixes": ["app/"]}],
        ["api", "tokens"],
    ),
    "xdp_gossip_agent_api_tls_cert": ("/etc/pki/cert.pem", ["api", "tls", "cert"]),
    "xdp_gossip_agent_api_tls_key": ("/etc/pki/key.pem", ["api", "tls", "key"]),
    "xdp_gossip_agent_listen_addr": ("198.18.0.11", ["listen_addr"]),
    "xdp_gossip_agent_dataplane_prepare_interface": (True, ["dataplane", "prepare_interface"]),
    "xdp_gossip_agent_dataplane_allow": (["198.18.0.0/15", "fd00::/8"], ["dataplane", "allow"]),
    "xdp_gossip_agent_config_extra": ({"limits": {"nodes": 99}}, ["limits"]),
}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to root")
def test_each_variable_reaches_the_configuration(controller: Controller) -> None:  # noqa: F811
    given = {name: value for name, (value, _) in VARIABLES.items()}
    unit_settings = {"xdp_gossip_agent_watchdog_sec": 77, "xdp_gossip_agent_memory_max": "50%"}
    given |= {
        "xdp_gossip_agent_api_tls": True,
        **unit_settings,
        "xdp_gossip_agent_api_addr": "198.18.0.12",
        "xdp_gossip_agent_api_port": 9101,
    }
    directory = write(controller, yaml.safe_dump(given))
    written = config(directory)
    for name, (value, path) in VARIABLES.items():
        found = written
        for step in path:
            assert step in found, f"{name}: expected {'.'.join(path)} in agent.yml, found {sorted(found)}"
            found = found[step]
        expected = value["limits"] if name == "xdp_gossip_agent_config_extra" else value
        assert found == expected, name
    assert written["api"]["listen"] == "198.18.0.12:9101"
    unit = (directory / "xdp-gossip.service").read_text().splitlines()
    assert {"WatchdogSec=77", "MemoryMax=50%", "LimitCORE=0", "TasksMax=256", "OOMPolicy=continue"} <= set(unit)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to root")
@pytest.mark.parametrize(("given", "bytes_"), [({}, 4 << 30), ({"limits": {"store": 3 << 30}}, 8 << 30)])
def test_the_bound_on_memory_follows_that_on_documents(
    controller: Controller,  # noqa: F811
    given: dict[str, dict[str, int]],
    bytes_: int,
) -> None:
    directory = write(controller, yaml.safe_dump({"xdp_gossip_agent_config_extra": given}))
    for unit in ("xdp-gossip.service", "xdp-gossip-files.service"):
        lines = (directory / unit).read_text().splitlines()
        assert "LimitCORE=0" in lines
        assert f"MemoryMax={bytes_ if unit == 'xdp-gossip.service' else '2G'}" in lines


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to root")
def test_without_tcp_and_without_a_key(controller: Controller) -> None:  # noqa: F811
    directory = write(
        controller, yaml.safe_dump({"xdp_gossip_agent_api_tcp": False, "xdp_gossip_agent_allow_insecure": True})
    )
    written = config(directory)
    assert written["api"]["listen"] == "" and written["allow_insecure"] is True
    assert "secret_key_file" not in written


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to root")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ("xdp_gossip_agent_zone:", None),
        ("xdp_gossip_agent_zone: 0", "0"),
        ("{xdp_gossip_agent_zone: '{{ datacenter }}', datacenter: 'no'}", "no"),
    ],
)
def test_a_zone_is_text_and_none_is_left_out(
    controller: Controller,  # noqa: F811
    variables: str,
    expected: str | None,
) -> None:
    written = config(write(controller, variables))
    assert written.get("zone") == expected and ("zone" in written) == (expected is not None)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to root")
def test_signers(controller: Controller) -> None:  # noqa: F811
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + 42 * "A" + "b= comment"
    variables = f"""
xdp_gossip_agent_signers:
  - {{name: a@b, public_key: "{key}", prefixes: [app/, "1", \U0001f600], valid_before: "2027-01-31T12:00:00Z"}}
  - {{name: unquoted, public_key: " {key}\\n", prefixes: [db/], valid_before: 2027-01-31T12:00:00Z}}
  - {{name: 7, public_key: "{key}", prefixes: ["true"], valid_before: }}
"""
    until = "2027-01-31T12:00:00Z"
    assert config(write(controller, variables))["signers"] == [
        {"name": "a@b", "public_key": key, "prefixes": ["app/", "1", "\U0001f600"], "valid_before": until},
        {"name": "unquoted", "public_key": key, "prefixes": ["db/"], "valid_before": until},
        {"name": "7", "public_key": key, "prefixes": ["true"]},
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to root")
def test_keys(controller: Controller) -> None:  # noqa: F811
    keys = [{"key": "k" * 32, "state": "active"}, {"key": "l" * 32, "state": "staged"}]
    directory = write(controller, yaml.safe_dump({"xdp_gossip_agent_keys": keys}))
    assert config(directory)["keys"] == [
        {"file": "/etc/xdp-gossip/keys/0", "state": "active"},
        {"file": "/etc/xdp-gossip/keys/1", "state": "staged"},
    ]


@pytest.mark.parametrize(("protocol", "expected"), [("auto", "@CAPABILITIES@"), ("UDP", "")])
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files are given to root")
def test_what_the_kernel_wants_is_filled_in_on_the_host(
    controller: Controller,  # noqa: F811
    protocol: str,
    expected: str,
) -> None:
    """By the module, whose own test says what comes of which answer."""
    given = {"xdp_gossip_agent_protocol": protocol}
    lines = (write(controller, yaml.safe_dump(given)) / "xdp-gossip.service").read_text().splitlines()
    assert f"CapabilityBoundingSet={expected}" in lines
    assert f"AmbientCapabilities={expected}" in lines
