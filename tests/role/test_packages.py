# SPDX-License-Identifier: MIT
"""Which failures of a package manager a host may do without a data plane for: those that no operator of it can mend."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

_VARS = Path(__file__).resolve().parents[2] / "roles" / "agent" / "vars" / "main.yml"
UNAVAILABLE = re.compile(yaml.safe_load(_VARS.read_text(encoding="utf-8"))["__xdp_gossip_unavailable"])


@pytest.mark.parametrize(
    "told",
    [
        "No package matching 'python3-bpfcc' is available",
        "Failed to update apt cache: unknown reason",
        "'/usr/bin/apt-get -y install 'libbpf1'' failed: E: Failed to fetch http://deb.example/l.deb  404  Not Found\n"
        "E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?",
        "E: Unable to locate package python3-apt",
        "Failed to install some of the specified packages",
        "Failed to download metadata for repo 'appstream': Cannot prepare internal mirrorlist: Curl error (6)",
        "Failed to resolve the transaction:\nNo match for argument: python3-bcc",
    ],
)
def test_packages_that_no_mirror_has_are_done_without(told: str) -> None:
    assert UNAVAILABLE.search(told)


@pytest.mark.parametrize(
    "told",
    [
        "Failed to lock apt for exclusive operation: Failed to lock directory /var/lib/apt/lists/: E:Could not get "
        "lock /var/lib/apt/lists/lock. It is held by process 4711 (apt-get)",
        "'/usr/bin/apt-get -y install 'libbpf1'' failed: E: Could not get lock /var/lib/dpkg/lock-frontend. It is held "
        "by process 4711 (unattended-upgr)\nE: Unable to acquire the dpkg frontend lock "
        "(/var/lib/dpkg/lock-frontend), is another process using it?",
        "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem.",
        "E: You don't have enough free space in /var/cache/apt/archives/.",
        "E: Unable to correct problems, you have held broken packages.",
        "dpkg: error processing package libbpf1 (--configure)",
        "Failed to obtain the transaction lock (logged in as: root).",
        "",
    ],
)
def test_faults_of_the_host_fail_its_deployment(told: str) -> None:
    assert not UNAVAILABLE.search(told)
