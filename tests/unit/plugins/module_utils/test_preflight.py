# SPDX-License-Identifier: MIT
"""The look at a host before a deployment: what stands in the way is named, and nothing else is."""

from __future__ import annotations

import os
import socket
import subprocess
import typing as t

import pytest
from ansible_collections.xdp_gossip.fleet.plugins.module_utils import _preflight as preflight
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fingerprint import fingerprint


def run(words: t.List[str]) -> t.Tuple[int, str]:
    """As the module runs a command."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return done.returncode, done.stdout.decode()


OWN, OTHER = "a secret of this fleet", "a secret of another fleet"


@pytest.mark.parametrize(
    ("addr", "others", "expected"),
    [
        ("198.18.0.11", True, ""),
        ("fd00::11", True, ""),
        ("127.0.0.1", False, ""),
        ("", True, "got none"),
        ("host1", True, "got 'host1'"),
        ("0.0.0.0", True, "got 0.0.0.0"),
        ("224.0.0.1", True, "got 224.0.0.1"),
        ("255.255.255.255", True, "got 255.255.255.255"),
        ("::1", True, "the loopback address ::1"),
    ],
)
def test_address(addr: str, others: bool, expected: str) -> None:
    errors = preflight.check_address({"addr": addr, "others": others})
    assert bool(errors) == bool(expected)
    assert all(error.startswith("xdp_gossip_agent_addr: expected ") and expected in error for error in errors)


@pytest.mark.parametrize(("name", "expected"), [("", ""), ("lo", ""), ("nosuch0", "lo"), ("../net/lo", "../net/lo")])
def test_interface(name: str, expected: str) -> None:
    errors = preflight.check_interface({"interface": name})
    assert bool(errors) == bool(expected)
    assert all(
        error.startswith("xdp_gossip_agent_dataplane_interface: expected ") and expected in error for error in errors
    )


def test_foreign_files_are_left_alone(tmp_path: t.Any) -> None:
    root, command = tmp_path / "opt", tmp_path / "command"
    root.mkdir()
    question = {"command": str(command), "root": str(root)}
    assert preflight.check_paths(question) == []
    command.symlink_to(root / "current/bin/xdp-gossip")
    (root / "current").symlink_to(root / "releases/1")
    assert preflight.check_paths(question) == []
    command.unlink()
    command.write_text("#!/bin/sh\n")
    (root / "current").unlink()
    (root / "current").mkdir()
    assert [error.split(":")[0] for error in preflight.check_paths(question)] == [str(command), str(root / "current")]


@pytest.fixture(name="question")
def fixture_question(monkeypatch: pytest.MonkeyPatch) -> t.Iterator[dict[str, t.Any]]:
    """A question about free ports of the loopback, whose agent's sockets are none."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        ports = first.getsockname()[1], second.getsockname()[1]
    monkeypatch.setattr(preflight, "agent_sockets", lambda unit, run: set())
    yield {
        "addr": "127.0.0.1",
        "listen": "127.0.0.1",
        "port": ports[0],
        "api_addr": "127.0.0.1",
        "api_port": ports[1],
        "unit": "xdp-gossip.service",
    }


@pytest.mark.parametrize(
    ("kind", "key", "told"),
    [
        (socket.SOCK_DGRAM, "port", "xdp_gossip_agent_port: expected UDP port"),
        (socket.SOCK_STREAM, "port", "xdp_gossip_agent_port: expected TCP port"),
        (socket.SOCK_STREAM, "api_port", "xdp_gossip_agent_api_port: expected TCP port"),
    ],
)
def test_a_port_that_somebody_has(
    question: dict[str, t.Any], monkeypatch: pytest.MonkeyPatch, kind: int, key: str, told: str
) -> None:
    assert preflight.check_ports(question, run) == []
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", question[key]))
        if kind == socket.SOCK_STREAM:
            holder.listen()
        (error,) = preflight.check_ports(question, run)
        assert error.startswith(told) and "another process has it" in error
        # What the running agent holds it may keep, and nothing but that.
        inode = os.readlink("/proc/self/fd/%d" % holder.fileno())[len("socket:[") : -1]
        monkeypatch.setattr(preflight, "agent_sockets", lambda unit, run: {inode, "1"})
        assert preflight.check_ports(question, run) == []
        monkeypatch.setattr(preflight, "agent_sockets", lambda unit, run: {"1"})
        assert len(preflight.check_ports(question, run)) == 1
    assert preflight.check_ports(question, run) == []


def test_a_descriptor_that_is_closed_meanwhile_hides_no_socket(tmp_path: t.Any) -> None:
    for number, link in (("3", "socket:[11]"), ("5", "socket:[12]"), ("6", "/dev/null")):
        (tmp_path / number).symlink_to(link)
    (tmp_path / "4").touch()  # its link cannot be read, as that of a descriptor that is closed meanwhile
    assert preflight._sockets_of(str(tmp_path)) == {"11", "12"}
    assert preflight._sockets_of(str(tmp_path / "ended")) == set()


def test_the_sockets_of_a_process_are_found() -> None:
    with socket.socket() as one:
        inode = os.readlink("/proc/self/fd/%d" % one.fileno())[len("socket:[") : -1]
        assert inode in preflight._sockets_of("/proc/self/fd")


def test_an_address_of_another_host(question: dict[str, t.Any]) -> None:
    away = {**question, "addr": "198.51.100.1", "listen": ""}
    (error,) = preflight.check_ports(away, run)
    assert error.startswith("xdp_gossip_agent_addr: expected an address of this host, got 198.51.100.1")
    assert preflight.check_ports({**away, "listen": "0.0.0.0"}, run) == []
    (error,) = preflight.check_ports({**question, "api_addr": "198.51.100.1"}, run)
    assert error.startswith("xdp_gossip_agent_api_port: ") and "does not belong to this host" in error


def test_seeds_that_answer(question: dict[str, t.Any]) -> None:
    with socket.socket() as listening, socket.socket() as bound:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        bound.bind(("127.0.0.1", 0))
        there, silent = ("127.0.0.1:%d" % one.getsockname()[1] for one in (listening, bound))
        named = there.replace("127.0.0.1", "localhost")
        seeds = [silent, there, named, "no-such-host.invalid:8000", "rubbish", "[::1]:1"]
        assert preflight.answering(seeds, ("127.0.0.1", 1)) == [there, named]
        assert preflight.answering([there], ("127.0.0.1", int(there.split(":")[1]))) == []
    assert preflight.resolvable(seeds) and not preflight.resolvable(["no-such-host.invalid:8000", "rubbish"])
    assert preflight.resolvable([])


def held(place: t.Any, **files: str) -> str:
    for name, text in files.items():
        path = place / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text + "\n")
    return str(place)


@pytest.mark.parametrize(
    ("files", "secrets", "refused"),
    [
        ({}, [OWN], False),
        ({"secret_key": OWN}, [OWN], False),
        ({"secret_key": OTHER}, [OWN], True),
        ({"keys__1": OWN, "keys__2": OTHER}, [OTHER, "the next one of this fleet"], False),
        ({"keys__1": OWN}, [OTHER], True),
        ({"secret_key": OWN}, [], False),  # without a key, on purpose
    ],
)
def test_a_host_with_secrets_of_another_fleet(
    tmp_path: t.Any, files: dict[str, str], secrets: list[str], refused: bool
) -> None:
    question = {
        "config_dir": held(tmp_path, **files),
        "secrets": secrets,
        "authority": "",
        "replace_secrets": False,
    }
    told = preflight.check_secrets(question)
    assert bool(told) == refused
    assert not [secret for secret in (OWN, OTHER) if secret in str(told)]
    assert preflight.check_secrets({**question, "replace_secrets": True}) == []


KEYS = "keys:\n- file: %s/keys/1\n  state: active\n- file: %s/keys/2\n  state: %s\n"


@pytest.mark.parametrize(
    ("files", "secrets", "former", "state", "outdated", "told"),
    [
        ({"secret_key": OWN}, [OTHER], [], "", "", "expected the secret that the controller has"),
        ({"secret_key": OWN}, [OTHER], [OWN], "", OWN, ""),
        ({"secret_key": OWN}, [OWN, OTHER], [OWN], "", "", ""),
        # Switched off in the middle of the rotation before the last one.
        ({"keys__1": OWN, "keys__2": "an even older one"}, [OTHER], [OWN, "an even older one"], "", OWN, ""),
        ({"keys__1": OWN, "keys__2": "of who knows whom"}, [OTHER], [OWN], "", "", "expected the secret that the"),
        # The rotation of another controller, and the end of one by hand.
        ({"keys__1": OWN, "keys__2": OTHER}, [OWN], [], "staged", "", "another controller is rotating the key"),
        ({"keys__1": OTHER, "keys__2": OWN}, [OWN], [], "retiring", "", "another controller is rotating the key"),
        ({"keys__1": OWN, "keys__2": OTHER}, [OWN], [], "retiring", "", ""),
        ({"keys__1": OWN, "keys__2": OTHER}, [OWN], [OTHER], "staged", "", ""),
    ],
)
def test_a_host_that_missed_a_rotation_or_is_in_one(
    tmp_path: t.Any, files: dict[str, str], secrets: list[str], former: list[str], state: str, outdated: str, told: str
) -> None:
    place = held(tmp_path, **files)
    (tmp_path / "agent.yml").write_text(KEYS % (place, place, state))
    question = {
        "config_dir": place,
        "cluster": "default",
        "secrets": secrets,
        "former": [fingerprint("default", secret) for secret in former],
        "all_known": True,
        "authority": "",
        "replace_secrets": False,
    }
    found = preflight.check_secrets(question)
    assert len(found) == bool(told) and told in "".join(found)
    assert not [secret for secret in (OWN, OTHER) if secret in str(found)]
    prints = [fingerprint("default", outdated)] if outdated else [""]
    if outdated and len(former) == 2:
        prints.append(fingerprint("default", former[1]))
    assert preflight.outdated(question) in prints


def test_a_host_with_another_authority(tmp_path: t.Any) -> None:
    place = held(tmp_path, ca_crt="one")
    question = {"config_dir": place, "secrets": [], "authority": "one\n", "replace_secrets": False}
    assert preflight.check_secrets(question) == []
    (told,) = preflight.check_secrets({**question, "authority": "two"})
    assert told.startswith(place + "/ca.crt: expected the certificate authority that the controller has")


def test_a_certificate_on_the_host(tmp_path: t.Any) -> None:
    good, key = tmp_path / "good.crt", tmp_path / "good.key"
    ended = tmp_path / "ended.crt"
    other = tmp_path / "other.key"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout"]
    try:
        subprocess.run([*make, str(key), "-out", str(good), "-days", "2"], check=True, capture_output=True)
        subprocess.run([*make, str(other), "-out", str(tmp_path / "other.crt")], check=True, capture_output=True)
        again = ["openssl", "x509", "-in", str(good), "-signkey", str(key), "-days", "-1", "-out", str(ended)]
        subprocess.run(again, check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("needs openssl")

    def told(certificate: t.Any, its_key: t.Any) -> str:
        return "".join(preflight.check_certificate({"tls_cert": str(certificate), "tls_key": str(its_key)}, run))

    assert told(good, key) == ""
    assert preflight.check_certificate({"tls_cert": None, "tls_key": None}, run) == []
    assert "key values mismatch" in told(good, other).lower().replace("_", " ")
    assert "No such file" in told(tmp_path / "none", key)
    assert "to be a certificate and its key, but" in told(key, key)
    assert told(ended, key).endswith("but it has ended")
