# SPDX-License-Identifier: MIT
"""What ``doctor`` finds on the host: configuration, rights of files, certificates, disks, units, ports, libraries."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from doctoring import look, look_at, wrong

from tests.support.agents import agent, write_config
from tests.support.ports import free_port
from xdp_gossip.cli.doctor import asking, certificates, configuration, disks, libraries, ports, rights, units
from xdp_gossip.cli.doctor.look import Look

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: other users' files, mounts")


def two_ports() -> tuple[int, int]:
    one = free_port()
    return one, next(port for port in iter(free_port, one) if port != one)


def ids(findings: Any) -> set[str]:
    return set(wrong(findings))


# -- configuration -----------------------------------------------------------------------------------------------


def test_a_configuration_that_is_half_broken_is_looked_at_all_the_same(tmp_path: Path) -> None:
    path = write_config(tmp_path / "a", 8000, cycel=1, amount=0)
    seen = look_at(path)
    found = [finding for finding in configuration.examine(seen) if finding.id == "config.invalid"]
    assert len(found) == 2 and "did you mean cycle" in found[0].text + found[1].text
    assert seen.config is not None and seen.config.state_dir == str(tmp_path / "a" / "state")
    assert ids(disks.examine(seen)) == {"disk.missing"}
    path.write_text("node: [")
    assert ids(configuration.examine(look_at(path))) == {"config.invalid"}
    path.write_bytes(b"\xff")
    assert "not UTF-8" in wrong(configuration.examine(look_at(path)))["config.invalid"].text


def test_a_cluster_without_a_secret(tmp_path: Path) -> None:
    path = write_config(tmp_path / "a", 8000, secret_key_file="", allow_insecure=True)
    assert ids(configuration.examine(look_at(path))) == {"config.insecure"}


@pytest.mark.slow
def test_a_file_that_the_agent_does_not_run_with(tmp_path: Path) -> None:
    with agent(tmp_path / "a", amount=3) as running:
        path = running.directory / "agent.yml"
        assert not ids(configuration.examine(look_at(path)))
        raw = json.loads(path.read_text())
        path.write_text(json.dumps({**raw, "amount": 5, "seeds": ["198.18.0.9:8000"], "log": {"level": "debug"}}))
        found = wrong(configuration.examine(look_at(path)))
        assert set(found) == {"config.restart", "config.reload"}
        assert found["config.restart"].text.endswith(": amount")
        assert found["config.reload"].text.endswith(": log, seeds")
        # A key's content counts as a setting, and its value is told to nobody.
        (running.directory / "secret.key").write_text("another secret of the tests")
        found = wrong(configuration.examine(look_at(path)))
        assert found["config.restart"].text.endswith(": amount")
        assert found["config.reload"].text.endswith(": log, secret_key, seeds")
        assert "another secret" not in str(running.json("status")) + str(look_at(path).loaded)
        copy = tmp_path / "copy.yml"
        copy.write_text(json.dumps({**raw, "secret_key_file": str(running.directory / "secret.key")}))
        assert "config.another" in ids(configuration.examine(look_at(copy)))
        path.write_text("nonsense: 1")
        assert "config.refused" in ids(configuration.examine(Look(str(copy), *_understood(copy), **_answers(copy))))


def _understood(path: Path) -> tuple[Any, Any]:
    seen = look_at(path)
    return seen.config, seen.problems


def _answers(path: Path) -> dict[str, Any]:
    seen = look_at(path)
    return {"status": seen.status, "loaded": seen.loaded, "state": seen.state}


# -- rights ------------------------------------------------------------------------------------------------------


@needs_root
def test_files_that_others_can_read_or_write(tmp_path: Path) -> None:
    path = write_config(tmp_path / "a", 8000, api={"socket": str(tmp_path / "s"), "token_file": "api.token"})
    tmp_path.joinpath("a").chmod(0o755)
    assert not ids(rights.examine(look_at(path)))
    secret, token = tmp_path / "a" / "secret.key", tmp_path / "a" / "api.token"
    secret.chmod(0o644)
    found = wrong(rights.examine(look_at(path)))
    assert "secret_key_file: expected a file that others cannot use" in found["files.open"].text
    assert "config.invalid" not in ids(configuration.examine(look_at(path)))
    secret.chmod(0o600)
    path.chmod(0o646)
    assert str(path) in wrong(rights.examine(look_at(path)))["files.writable"].text
    path.chmod(0o640)
    (tmp_path / "a").chmod(0o777)
    assert wrong(rights.examine(look_at(path)))["files.writable"].text == f"{tmp_path}/a can be written by anybody"
    (tmp_path / "a").chmod(0o755)
    # The agent that answers says whose it is.
    os.chown(token, 0, 12345)
    token.chmod(0o640)
    seen = replace(look_at(path), uid=23456, gid=23456)
    found = wrong(rights.examine(seen))
    assert "can be read by group 12345" in found["files.group"].text
    assert "cannot be read by the agent's user 23456" in found["files.shut"].text
    assert found["files.group"].remedy == f"chown 23456:root {token}; chmod 0440 {token}"
    # The users of the API's socket are in the agent's group.
    os.chown(token, 23456, 23456)
    assert "whose users may open the API's socket" in wrong(rights.examine(seen))["files.group"].text
    os.chown(token, 23456, 0)
    token.chmod(0o440)
    os.chown(secret, 23456, 0)
    assert str(path) in wrong(rights.examine(seen))["files.shut"].text
    os.chown(path, 0, 23456)
    assert not ids(rights.examine(seen))


# -- certificates ------------------------------------------------------------------------------------------------


class Issuer:
    """A key, and certificates that it signs."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.certificate = self.sign(self.name, self.key, -1, 365, ())

    def sign(self, name: x509.Name, key: Any, begin: float, end: float, names: Any) -> x509.Certificate:
        """A certificate from ``begin`` to ``end``, in days from now."""
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + datetime.timedelta(days=begin))
            .not_valid_after(now + datetime.timedelta(days=end))
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(list(names)), False)
        return builder.sign(self.key, hashes.SHA256())


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


class Site:
    """A configuration whose API has TLS, and the certificate that is made for it."""

    def __init__(self, directory: Path) -> None:
        self.issuer = Issuer("tests' authority")
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.directory = directory
        self.node_port, self.port = two_ports()
        self.api = {
            "socket": str(directory / "api.sock"),
            "listen": f"127.0.0.1:{self.port}",
            "token_file": "api.token",
            "tls": {"cert": "cert.pem", "key": "key.pem"},
        }
        self.path = write_config(directory, self.node_port, api=self.api)
        (directory / "ca.pem").write_bytes(pem(self.issuer.certificate))
        self.write_key(self.key)
        self.make()

    def write_key(self, key: Any) -> None:
        parts = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.directory / "key.pem").write_bytes(key.private_bytes(*parts))
        (self.directory / "key.pem").chmod(0o600)

    def make(self, begin: float = -1, end: float = 90, names: Any = None, behind: Any = ()) -> None:
        names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))] if names is None else names
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "member")])
        leaf = self.issuer.sign(subject, self.key, begin, end, names)
        (self.directory / "cert.pem").write_bytes(pem(leaf, *behind))

    def found(self, **options: Any) -> dict[str, Any]:
        return wrong(certificates.examine(look_at(self.path, **options)))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "a")


def test_certificates_and_their_times(site: Site) -> None:
    assert not site.found() and not site.found(ca_file=str(site.directory / "ca.pem"))
    site.make(end=20)
    assert "in 20 days" in site.found()["certificate.soon"].text
    site.make(begin=-9, end=-2)
    found = site.found()["certificate.expired"]
    assert found.level == "error" and "CN=member has expired on" in found.text and "2 days ago" in found.text
    site.make(begin=2)
    assert set(site.found()) == {"certificate.early"}


def test_a_certificate_with_other_names(site: Site) -> None:
    site.make(names=[x509.DNSName("other.example"), x509.IPAddress(ipaddress.ip_address("198.18.0.9"))])
    found = site.found()["certificate.names"]
    assert "names 198.18.0.9, other.example; members are asked as 127.0.0.1 or a" in found.text
    site.make(names=())
    assert "no subjectAltName" in site.found()["certificate.names"].text
    site.make(names=[x509.DNSName("a.example")])
    assert not site.found()


def test_a_certificate_of_another_key_or_issuer(site: Site) -> None:
    site.make(behind=[Issuer("somebody else").certificate])
    assert "is not signed by the next one in the file" in site.found()["certificate.chain"].text
    site.make(behind=[site.issuer.certificate])
    assert not site.found(ca_file=str(site.directory / "ca.pem"))
    (site.directory / "ca.pem").write_bytes(pem(Issuer("tests' authority").certificate))
    site.make()
    assert set(site.found(ca_file=str(site.directory / "ca.pem"))) == {"certificate.chain"}
    (site.directory / "ca.pem").write_bytes(b"nothing")
    assert set(site.found(ca_file=str(site.directory / "ca.pem"))) == {"certificate.chain"}
    site.write_key(ec.generate_private_key(ec.SECP256R1()))
    assert site.found()["certificate.mismatch"].level == "error"
    assert "config.invalid" not in ids(configuration.examine(look_at(site.path)))


def test_certificates_that_are_none(site: Site) -> None:
    for content in (b"", b"nothing", b"-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----\n", b"\xff" * 99):
        (site.directory / "cert.pem").write_bytes(content)
        assert "certificate.unreadable" in site.found(), content
    (site.directory / "cert.pem").unlink()
    assert set(site.found()) == {"certificate.unreadable"}


@pytest.mark.slow
def test_a_certificate_that_was_renewed_under_a_running_agent(site: Site) -> None:
    with agent(site.directory, site.node_port, api=site.api):
        assert not site.found()
        site.make(end=180)
        assert "shows another certificate than is on disk" in site.found()["certificate.served"].text


# -- disks -------------------------------------------------------------------------------------------------------


def in_mount(tmp_path: Path, options: str, prepare: str = "true") -> dict[str, Any]:
    """Doctor's findings of the disk, with another one (tmpfs) mounted as state directory."""
    path = write_config(tmp_path / "a", free_port())
    (tmp_path / "a" / "state").mkdir(mode=0o700, exist_ok=True)
    program = (
        "import argparse, json, sys; from dataclasses import asdict\n"
        "from xdp_gossip.cli.doctor import disks; from xdp_gossip.cli.doctor.look import gather\n"
        f"seen = list(gather(argparse.Namespace(config={str(path)!r}), 10))[-1]\n"
        "print(json.dumps([asdict(found) for found in disks.examine(seen)]))"
    )
    state = tmp_path / "a" / "state"
    line = f'mount -t tmpfs -o mode=0700,{options} none "{state}" && cd "{state}" && {prepare} && exec "$0" -c "$1"'
    words = ["unshare", "--mount", "sh", "-c", line, sys.executable, program]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    if done.returncode and ("unshare" in done.stderr or "mount" in done.stderr):
        pytest.skip(f"no mount namespace here: {done.stderr.strip()}")
    assert done.returncode == 0, done
    return {found["id"]: found for found in json.loads(done.stdout)}


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize(
    ("options", "prepare", "wanted"),
    [
        ("size=2g", "true", {"disk.ok"}),
        ("size=70m", "head -c 10m /dev/zero > x", {"disk.full"}),
        ("size=70m", "! head -c 99m /dev/zero > x 2>/dev/null", {"disk.full"}),
        ("size=1g", "truncate -s 0 x; fallocate -l 940m x", {"disk.low"}),
        ("size=2g,nr_inodes=50", "true", {"disk.inodes"}),
        ("size=2g,nr_inodes=2", "! touch x y z 2>/dev/null", {"disk.inodes", "disk.denied"}),
        ("size=2g", "mount -o remount,ro .", {"disk.readonly"}),
    ],
)
def test_disks_that_take_nothing_more(tmp_path: Path, options: str, prepare: str, wanted: set[str]) -> None:
    found = in_mount(tmp_path, options, prepare)
    assert set(found) == wanted
    assert all(each["remedy"] for each in found.values() if each["level"] != "ok")


def test_state_directories(tmp_path: Path) -> None:
    path, state = write_config(tmp_path / "a", free_port()), tmp_path / "a" / "state"
    assert ids(disks.examine(look_at(path))) == {"disk.missing"}
    state.write_text("x")
    assert ids(disks.examine(look_at(path))) == {"disk.directory"}
    state.unlink()
    state.mkdir()
    state.chmod(0o755)
    assert "disk.open" in ids(disks.examine(look_at(path)))


def test_a_slow_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_config(tmp_path / "a", free_port())
    (tmp_path / "a" / "state").mkdir(mode=0o700)
    ticks = iter((0.0, 2.5))
    seen = look_at(path)
    monkeypatch.setattr(disks.time, "monotonic", lambda: next(ticks))
    found = wrong(disks.examine(seen))
    assert "4 KiB took 2.5 s to reach the disk" in found["disk.slow"].text
    assert os.listdir(tmp_path / "a" / "state") == []


# -- units, ports, libraries, the agent's absence ----------------------------------------------------------------


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A host with systemd, as far as doctor can see: what ``show`` prints is in a file."""
    program, says = tmp_path / "bin" / "systemctl", tmp_path / "says"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ncat {says}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(units, "_BOOTED", str(tmp_path))
    yield says


def unit(**more: str) -> str:
    properties = {"Id": "xdp-gossip.service", "LoadState": "loaded", "ActiveState": "active", "SubState": "running"}
    return "".join(f"{name}={value}\n" for name, value in {**properties, **more}.items()) + "\n"


def test_units(systemctl: Path) -> None:
    systemctl.write_text(unit() + unit(Id="xdp-gossip-files.service", LoadState="not-found", ActiveState="failed"))
    assert [finding.id for finding in units.examine(look())] == ["unit.ok"]
    systemctl.write_text(unit(ActiveState="failed", Result="exit-code", NRestarts="7", NeedDaemonReload="yes"))
    found = wrong(units.examine(Look("x")))
    assert set(found) == {"unit.failed", "unit.restarts", "unit.changed"}
    assert found["unit.failed"].level == "error" and "exit-code" in found["unit.failed"].text
    systemctl.write_text(unit(UnitFileState="disabled", NRestarts="2"))
    assert ids(units.examine(look())) == {"unit.disabled"}
    systemctl.write_text(unit(ActiveState="inactive", SubState="dead"))
    assert ids(units.examine(Look("x"))) == {"unit.stopped"}
    systemctl.unlink()
    assert ids(units.examine(Look("x"))) == {"doctor.unseen"}


def test_a_host_without_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(units, "_BOOTED", str(tmp_path / "no"))
    assert not list(units.examine(look()))


def test_ports_of_an_agent_that_does_not_run(tmp_path: Path) -> None:
    port = free_port()
    path = write_config(tmp_path / "a", port)
    assert not ids(ports.examine(look_at(path)))
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as taker:
        taker.bind(("127.0.0.1", port))
        assert f"127.0.0.1 port {port}/udp" in wrong(ports.examine(look_at(path)))["port.taken"].text
    path = write_config(tmp_path / "b", port, listen_addr="198.18.77.77")
    assert ids(ports.examine(look_at(path))) == {"port.address"}
    refused = ports._why(PermissionError(1, "Operation not permitted"), "127.0.0.1 port 1/udp", "127.0.0.1", 1)
    assert refused.id == "port.refused"


def test_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not ids(libraries.examine(look()))
    monkeypatch.setitem(sys.modules, "nacl", None)
    found = wrong(libraries.examine(look()))
    assert set(found) == {"library.missing"}
    assert found["library.missing"].remedy == "install python3-nacl or its like"
    monkeypatch.setattr(libraries, "_OLDEST", (99, 0))
    assert "library.python" in ids(libraries.examine(look()))


@pytest.mark.slow
def test_an_agent_that_does_not_answer(tmp_path: Path) -> None:
    path, place = write_config(tmp_path / "a", free_port()), tmp_path / "a" / "api.sock"
    assert ids(asking.examine(look_at(path))) == {"agent.down"}
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as deaf:
        deaf.bind(str(place))
        assert ids(asking.examine(look_at(path))) == {"agent.down"}  # a socket that an agent left behind
        deaf.listen()
        found = wrong(asking.examine(look_at(path, seconds=0.2)))
        assert set(found) == {"agent.silent"} and "no answer in time" in found["agent.silent"].text
    place.unlink()
    none = "no kernel data plane"
    with agent(tmp_path / "b", protocol="XDP", ready=none, dataplane={"directory": str(tmp_path / "none")}) as one:
        assert ids(asking.examine(look_at(one.directory / "agent.yml"))) == {"agent.starting"}


@pytest.mark.slow
def test_an_agent_of_another_host_or_token(tmp_path: Path) -> None:
    own, port = two_ports()
    api = {"socket": str(tmp_path / "a" / "api.sock"), "listen": f"127.0.0.1:{port}", "token_file": "api.token"}
    mine = write_config(tmp_path / "mine", free_port())
    with agent(tmp_path / "a", own, api=api) as running:
        assert "agent.other" in ids(asking.examine(look_at(mine, socket=str(running.socket))))
        (tmp_path / "token").write_text("not its token")
        for token, wanted in (("token", {"agent.refused"}), ("a/api.token", {"agent.other"})):
            seen = look_at(mine, endpoint=f"http://127.0.0.1:{port}", token_file=str(tmp_path / token))
            assert ids(asking.examine(seen)) - {"agent.catching_up"} == wanted
