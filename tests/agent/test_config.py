# SPDX-License-Identifier: MIT
"""The configuration file: defaults, every kind of mistake, and that all mistakes are told at once."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import keys
from xdp_gossip.config import reader
from xdp_gossip.config.access import new_token
from xdp_gossip.config.agent import AgentConfig, ConfigError, describe, load, parse
from xdp_gossip.core.types import Address, Node
from xdp_gossip.wire.keys import generate

BASE = "node: {addr: 198.18.0.11}\n"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a good secret, a good token, and some bad ones."""
    for name, content, mode in (
        ("secret.key", "  0123456789abcdef \n", 0o640),
        ("generated.key", keys.KEY + "\n", 0o600),
        ("clash.key", keys.with_id("default", 19, keys.KEY) + "\n", 0o600),
        ("cut.key", keys.KEY[:-1] + "\n", 0o600),
        ("api.token", "tokentokentokentoken\n", 0o600),
        ("open.key", "0123456789abcdef\n", 0o644),
        ("short.key", "short\n", 0o600),
        ("two.key", "0123456789abcdef\n0123456789abcdef\n", 0o600),
        ("empty.key", "\n", 0o600),
        ("space.token", "token with spaces in it\n", 0o600),
    ):
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    return tmp_path


def problems(place: Path, text: str) -> list[str]:
    """The problems of a file with this text, without the file name."""
    path = place / "agent.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    prefix = f"{path}: "
    assert all(line.startswith(prefix) for line in caught.value.problems)
    return [line[len(prefix) :] for line in caught.value.problems]


def good(place: Path, text: str) -> AgentConfig:
    """The configuration from this text."""
    path = place / "agent.yml"
    path.write_text(text)
    return load(str(path))


def test_defaults(place: Path) -> None:
    config = good(place, BASE + "secret_key_file: secret.key\n")
    assert config.node.address == Address("198.18.0.11", 8000)
    assert config.node.name
    assert (config.cluster, config.listen_addr, config.protocol, config.wire) == (
        "default",
        "0.0.0.0",
        "auto",
        "native",
    )
    assert (config.amount, config.cycle, config.timeout, config.buffer, config.size) == (4, 0.0, 0.0, 0, 16384)
    assert config.secret_key == "0123456789abcdef"
    assert (config.api.socket, config.api.listen, config.api.token) == ("/run/xdp-gossip/api.sock", None, None)
    assert (config.limits.document, config.limits.nodes, config.limits.documents) == (16777216, 20000, 100000)
    assert config.state_dir == "/var/lib/xdp-gossip"


def test_everything_given(place: Path) -> None:
    config = good(
        place,
        """
cluster: prod-1
node: {addr: "fd00::1", port: 9000, name: a, private_data: "x y"}
protocol: TCP
amount: 3
cycle: 6
timeout: 20.5
buffer: 100
size: 20000
keys:
  - {file: secret.key, state: active}
  - {file: generated.key, state: staged}
seeds: ["[fd00::2]:9000", "198.18.0.12:8000", "198.18.0.12:8000", "seeds.example.org:8001"]
state_dir: /tmp/x
max_clock_drift: 5
api: {socket: "", listen: "127.0.0.1:8001", token_file: api.token}
log: {level: debug, format: json}
limits: {document: 2048, nodes: 10, documents: 5}
is_print: true
""",
    )
    assert config.node == Node("fd00::1", 9000, "a", "x y")
    assert config.listen_addr == "::"
    assert (config.cycle, config.timeout, config.buffer) == (6.0, 20.5, 100)
    assert [(key.state, key.secret) for key in config.keys] == [("active", "0123456789abcdef"), ("staged", keys.KEY)]
    assert config.seeds == (Address("fd00::2", 9000), Address("198.18.0.12", 8000))
    assert config.seed_names == (("seeds.example.org", 8001),)
    assert config.api.token == "tokentokentokentoken"
    assert config.api.listen == Address("127.0.0.1", 8001)
    assert config.is_print is True


def test_no_secret_is_shown(place: Path) -> None:
    config = good(
        place,
        BASE + "secret_key_file: secret.key\napi: {listen: '127.0.0.1:8001', token_file: api.token}\n",
    )
    for shown in (repr(config), str(describe(config))):
        assert "0123456789abcdef" not in shown
        assert "tokentoken" not in shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{}", "node: expected a mapping with addr, port, name, private_data, got nothing"),
        ("[]", "file: expected a mapping with cluster"),
        ("7", "file: expected a mapping with cluster"),
        ("node: {}", "node.addr: expected the address that other nodes reach this one by, got none"),
        ("node: {addr: localhost}", "node.addr: expected an IPv4 or IPv6 address, got text 'localhost'"),
        ("node: {addr: 0.0.0.0}", "node.addr: expected an address that other nodes can send to"),
        ("node: {addr: 224.0.0.1}", "node.addr: expected an address that other nodes can send to"),
        ("node: {addr: 255.255.255.255}", "node.addr: expected an address that other nodes can send to"),
        (f"{BASE}amount: 0x{'f' * 9000}", "amount: expected an integer from 1 to 64, got integer a whole number of"),
        (f"{BASE}wire: 0x{'f' * 9000}", "wire: expected one of native, pekonode, got integer a whole number of"),
        (f"{BASE}? 0x{'f' * 9000}\n: 1", "a whole number of 36000 bits: expected one of cluster, "),
        (f"{BASE}cycle: 0.01", "cycle: expected a number from 0.05 to 3600 or auto, got number 0.01"),
        ("node: {addr: 'fe80::1%eth0'}", "node.addr: expected an address without a zone"),
        ("node: {addr: 198.18.0.11, port: 0}", "node.port: expected an integer from 1 to 65535, got integer 0"),
        ("node: {addr: 198.18.0.11, port: '8000'}", "node.port: expected an integer from 1 to 65535, got text '8000'"),
        ("node: {addr: 198.18.0.11, port: true}", "node.port: expected an integer from 1 to 65535, got boolean true"),
        (
            "node: {addr: 198.18.0.11, name: 5}",
            "node.name: expected text (in quotes when it looks like something else)",
        ),
        (
            "node: {addr: 198.18.0.11, nmae: x}",
            "node.nmae: expected one of addr, port, name, private_data, got an unknown key (did you mean name?)",
        ),
        (BASE + "clutser: x", "(did you mean cluster?)"),
        (BASE + "3: x", "3: expected one of cluster"),
        (BASE + "cluster: 'a b'", "cluster: expected 1 to 64 letters, digits"),
        (
            BASE + "cluster: no",
            "cluster: expected text (in quotes when it looks like something else), got boolean false",
        ),
        (BASE + "listen_addr: '::1'", "listen_addr: expected an IPv4 address, as node.addr is one"),
        ("node: {addr: 'fd00::1'}\nlisten_addr: 0.0.0.0", "listen_addr: expected an IPv6 address, as node.addr is one"),
        (BASE + "protocol: udp", "protocol: expected one of auto, XDP, TC, UDP, TCP, got text 'udp'"),
        (BASE + "protocol: XDP\nwire: pekonode", "protocol: expected auto, UDP or TCP with wire pekonode"),
        (BASE + "dataplane: {interface: 'a b'}", "dataplane.interface: expected the name of a network interface"),
        (BASE + "dataplane: {interface: ..}", "dataplane.interface: expected the name of a network interface"),
        (BASE + "dataplane: {directory: run}", "dataplane.directory: expected an absolute path"),
        (BASE + "dataplane: {interfaces: a}", "did you mean interface?"),
        (BASE + "zone: a\nwire: pekonode", "zone: expected none with wire pekonode"),
        (BASE + "zone: -a", "zone: expected empty, or 1 to 64 letters"),
        (BASE + f"zone: {'a' * 65}", "zone: expected empty, or 1 to 64 letters"),
        (BASE + "zone: [a]", "zone: expected text"),
        (BASE + "zone: 1", "zone: expected text"),
        (BASE + "wire: json", "wire: expected one of native, pekonode, got text 'json'"),
        (BASE + "amount: 0", "amount: expected an integer from 1 to 64, got integer 0"),
        (BASE + "amount: 3.5", "amount: expected an integer from 1 to 64, got number 3.5"),
        (BASE + "cycle: .nan", "cycle: expected a number from 0.05 to 3600 or auto, got number nan"),
        (BASE + "cycle: .inf", "cycle: expected a number from 0.05 to 3600 or auto, got number inf"),
        (BASE + "cycle: -1", "cycle: expected a number from 0.05 to 3600 or auto, got integer -1"),
        (BASE + "cycle: true", "cycle: expected a number from 0.05 to 3600 or auto, got boolean true"),
        (BASE + "cycle: 6\ntimeout: 6", "timeout: expected more seconds than the cycle (6), or auto, got 6"),
        (BASE + "buffer: fast", "buffer: expected an integer from 1 to 1000000 or auto, got text 'fast'"),
        (BASE + "size: 100", "size: expected an integer from 4096 to 65507, got integer 100"),
        (BASE, "secret_key_file: expected a file with the cluster's secret"),
        (BASE + "secret_key_file: nope", "secret_key_file: expected a readable file, got No such file or directory"),
        (BASE + "secret_key_file: /tmp", "secret_key_file: expected a readable file, got "),
        (
            BASE + "secret_key_file: open.key",
            "secret_key_file: expected a file that others cannot use (chmod o= FILE), got mode 0644",
        ),
        (BASE + "secret_key_file: short.key", "secret_key_file: expected a secret of at least 16 bytes, got 5 bytes"),
        (BASE + "secret_key_file: two.key", "secret_key_file: expected a file with one line, got 2 lines"),
        (BASE + "secret_key_file: empty.key", "secret_key_file: expected a file with one line, got 0 lines"),
        (BASE + "keys: []", "keys: expected exactly one key with state: active, got 0"),
        (
            BASE + "keys: [{file: secret.key, state: staged}]",
            "keys: expected exactly one key with state: active, got 0",
        ),
        (
            BASE + "keys: [{file: secret.key, state: activ}]",
            "keys[0].state: expected one of staged, active, retiring, got text 'activ' (did you mean active?)",
        ),
        (
            BASE + "keys: [{id: 1, file: secret.key, state: active}]",
            "keys[0].id: expected one of file, state, got an unknown key",
        ),
        (BASE + "keys: [{state: active}]", "keys[0].file: expected a file with this key's secret, got none"),
        (
            BASE + "keys: [{file: secret.key, state: active}, {file: secret.key, state: staged}]",
            "keys[1].file: expected each secret once, got the secret of keys[0].file again",
        ),
        (
            BASE + "keys: [{file: generated.key, state: active}, {file: clash.key, state: staged}]",
            "keys[1].file: expected a key with an id of its own, got the id 19 of keys[0].file; generate another key",
        ),
        (BASE + "keys: [{file: open.key, state: active}]", "keys[0].file: expected a file that others cannot use"),
        (BASE + "secret_key_file: cut.key", "secret_key_file: expected xgk1_ and 43 characters"),
        (BASE + "keys: [" + 9 * "{file: secret.key, state: staged}, " + "]", "keys: expected a list of at most 8"),
        (
            BASE + "secret_key_file: secret.key\nkeys: [{file: secret.key, state: active}]",
            "keys: expected either secret_key_file or keys, got both",
        ),
        (
            BASE + "wire: pekonode\nkeys: [{file: secret.key, state: active}]",
            "keys: expected secret_key_file with wire pekonode",
        ),
        (BASE + "allow_insecure: 'yes'", "allow_insecure: expected true or false, got text 'yes'"),
        (BASE + "seeds: 198.18.0.12:8000", "seeds: expected a list of at most 100000 entries, got text"),
        (
            BASE + "seeds: [host1]",
            "seeds[0]: expected ADDRESS:PORT (an IPv6 address in brackets) or NAME:PORT, got text 'host1'",
        ),
        (BASE + "seeds: ['224.0.0.1:8000']", "seeds[0]: expected the address of one host, got text '224.0.0.1:8000'"),
        (BASE + "seeds: ['0.0.0.0:8000']", "seeds[0]: expected the address of one host, got text '0.0.0.0:8000'"),
        (BASE + "seeds: ['[::]:8000']", "seeds[0]: expected the address of one host, got text '[::]:8000'"),
        (BASE + "seeds: ['[ff02::1]:1']", "seeds[0]: expected the address of one host, got text '[ff02::1]:1'"),
        (
            BASE + "seeds: [300.1.1.1]",
            "seeds[0]: expected ADDRESS:PORT (an IPv6 address in brackets) or NAME:PORT, got text '300.1.1.1'",
        ),
        (
            BASE + "seeds: ['300.1.1.1:8000']",
            "seeds[0]: expected ADDRESS:PORT (an IPv6 address in brackets) or NAME:PORT, got text '300.1.1.1:8000'",
        ),
        (
            BASE + "seeds: [8000]",
            "seeds[0]: expected ADDRESS:PORT (an IPv6 address in brackets) or NAME:PORT, got integer 8000",
        ),
        (BASE + "state_dir: state", "state_dir: expected an absolute path, got text 'state'"),
        (BASE + "api: {socket: x}", "api.socket: expected an absolute path or nothing, got text 'x'"),
        (BASE + f"api: {{socket: /{'x' * 120}}}", "api.socket: expected a path of at most 107 bytes, got 121"),
        (BASE + "api: {socket: ''}", "api.socket: expected a socket path, or api.listen, got neither"),
        (
            BASE + "api: {listen: '127.0.0.1:8001'}",
            "api.token_file: expected a file with the API token, or api.tokens, as api.listen is set, got neither",
        ),
        (
            BASE + "api: {listen: '127.0.0.1:8000', token_file: api.token}",
            "api.listen: expected another port than node.port (8000)",
        ),
        (BASE + "api: {listen: '8001', token_file: api.token}", "api.listen: expected ADDRESS:PORT"),
        (
            BASE + "api: {token_file: space.token}",
            "api.token_file: expected a token of printable ASCII characters without a space",
        ),
        (BASE + "api: {token_file: open.key}", "api.token_file: expected a file that others cannot use"),
        (BASE + "api: {tls: {cert: secret.key}}", "api.tls.key: expected both cert and key, or neither, got none"),
        (
            BASE + "api: {tls: {cert: secret.key, key: secret.key}}",
            "api.tls.cert: expected a PEM certificate that belongs to tls.key",
        ),
        (BASE + "log: {level: loud}", "log.level: expected one of debug, info, warning, error, got text 'loud'"),
        (BASE + "limits: {document: 1}", "limits.document: expected an integer from 1024 to 268435456, got integer 1"),
        (BASE + "is_print: 1", "is_print: expected true or false, got integer 1"),
        ("a: [1,\n  b: {", "line 2, column 7: expected valid YAML, got "),
        (
            "a: !!python/object/apply:os.system [id]",
            "line 1, column 4: expected valid YAML, got could not determine a constructor",
        ),
        ("node: {addr: 198.18.0.11}\nnode: {addr: 198.18.0.12}", "node: expected the key once, got it again on line 2"),
        ("a: \x01", "file: expected YAML text"),
        ("[" * 5000, "file: expected values nested a few levels deep"),
        ("when: 2001-13-45", "expected"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(place: Path, text: str, expected: str) -> None:
    found = problems(place, text)
    assert any(expected in line for line in found), found


def test_all_mistakes_are_told_at_once(place: Path) -> None:
    found = problems(place, "nod: 1\namount: x\ncycle: x\nprotocol: x\napi: {socket: x}\nlimits: 3\n")
    keys = {line.split(":")[0] for line in found}
    assert {"nod", "node", "amount", "cycle", "protocol", "api.socket", "limits", "secret_key_file"} <= keys


def test_pekonode_takes_any_secret_and_insecure_is_explicit(place: Path) -> None:
    assert good(place, BASE + "wire: pekonode\nsecret_key_file: short.key\n").secret_key == "short"
    assert good(place, BASE + "allow_insecure: true\n").secret_key == ""


def test_files_that_are_no_configuration(place: Path) -> None:
    for path, reason in (
        ("/dev/zero", "no regular file"),
        (str(place), "directory"),
        (str(place / "x"), "No such file"),
    ):
        with pytest.raises(ConfigError, match=reason):
            load(path)
    (place / "latin.yml").write_bytes(b"node: \xe9")
    with pytest.raises(ConfigError, match="not UTF-8 at offset 6"):
        load(str(place / "latin.yml"))
    (place / "large.yml").write_bytes(b"#" * (1 << 20) + b"#")
    with pytest.raises(ConfigError, match="more than 1048576 bytes"):
        load(str(place / "large.yml"))


def test_a_file_that_cannot_be_read_keeps_no_descriptor(place: Path) -> None:
    """A client may ask for a comparison with the file as often as it likes."""
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        assert any("a directory" in line for line in problems(place, BASE + "secret_key_file: /etc\n"))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    "text",
    [
        *("secret_key_file: KEY", "keys: KEY", "keys: [KEY]", "keys: [{file: KEY, state: active}]", "KEY: 1"),
        *("keys: [{file: secret.key, state: KEY}]", "api: {token_file: TOKEN}", "api: {tokens: [TOKEN]}"),
    ],
)
def test_a_secret_in_the_place_of_its_file_is_not_shown(place: Path, text: str) -> None:
    key, token = generate(), new_token()
    found = problems(place, f"{BASE}{text.replace('KEY', key).replace('TOKEN', token)}\n")
    assert found and not any(key[5:] in line or token[3:] in line for line in found)
    assert any("(not shown)" in line for line in found), found


def test_a_file_that_vanishes_while_it_is_read_is_a_problem(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator replaces the file by hand while the agent reloads: the agent must keep its keys, and not end."""
    read_text = reader.read_text

    def vanishing(path: str, most: int) -> tuple[str | None, str]:
        found = read_text(path, most)
        if path.endswith("secret.key"):
            Path(path).unlink()
        return found

    monkeypatch.setattr(reader, "read_text", vanishing)
    [line] = problems(place, BASE + "secret_key_file: secret.key\n")
    assert line.startswith("secret_key_file: expected a readable file, got No such file")


def test_a_fifo_does_not_block(place: Path) -> None:
    subprocess.run(["mkfifo", str(place / "fifo")], check=True)
    assert any("no regular file" in line for line in problems(place, BASE + "secret_key_file: fifo\n"))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
NAMES = ["node", "addr", "port", "api", "tls", "keys", "id", "file", "state", "seeds", "log", "limits", "cycle", "x"]
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=5),
    max_leaves=20,
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200) | TREES.map(repr))
def test_any_text_gives_a_configuration_or_an_error_with_a_file_name(text: str) -> None:
    try:
        config = parse(text, "agent.yml")
    except ConfigError as error:
        assert error.problems
        assert all(line.startswith("agent.yml: ") and "expected" in line for line in error.problems)
    else:
        assert config.node.addr


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPr4SRm1EZd1zLnLpCaNdDcr8ziGnrLbeI/Ck1Y5FrRo operations"
SIGNER = f'{{name: ops, public_key: "{KEY}", prefixes: ["app/"]'


def test_signers(place: Path) -> None:
    head = BASE + "secret_key_file: secret.key\nsigners:\n"
    [one] = good(place, f"{head}- {SIGNER}}}\n").signers
    assert (one.name, one.prefixes) == ("ops", ("app/",)) and one.valid_before > 2**57
    for text in ("2027-01-31T12:00:00Z", '"2027-01-31T12:00:00Z"', "2027-01-31T13:00:00+01:00", "2027-01-31T12:00:00"):
        [one] = good(place, f"{head}- {SIGNER}, valid_before: {text}}}\n").signers
        assert one.valid_before == 1_801_396_800_000_000
    assert describe(good(place, f"{head}- {SIGNER}}}\n"))["signers"][0]["key"].startswith("SHA256:")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("signers: alice", "signers: expected a list of at most 256 entries, got text 'alice'"),
        ("signers: [{}]", "signers[0].name: expected 1 to 64 letters"),
        (f"signers: [{SIGNER}, since: 1}}]", "signers[0].since: expected one of name, public_key"),
        (f"signers: [{SIGNER}, valid_before: 2027-01-31}}]", "signers[0].valid_before: expected a time such as 2027-"),
        (
            f"signers: [{SIGNER}, valid_before: soon}}]",
            "signers[0].valid_before: expected a time such as 2027-01-31T12",
        ),
        ('signers: [{name: a, public_key: x, prefixes: ["a"]}]', "signers[0].public_key: expected a line such as"),
        (
            f"signers: [{SIGNER.replace('AAAAC3', 'AAAAB3')}}}]",
            "signers[0].public_key: expected a key of type ssh-ed25519",
        ),
        (f"signers: [{SIGNER.replace(KEY, KEY[:40])}}}]", "signers[0].public_key: expected "),
        (f"signers: [{SIGNER.replace('[', '[1, ')}}}]", "signers[0].prefixes: expected a list of prefixes of keys"),
        (f'signers: [{{name: ops, public_key: "{KEY}", prefixes: []}}]', "signers[0].prefixes: expected 1 to 256"),
        *(
            (f'signers: [{{name: a, public_key: "{KEY}", prefixes: ["{wrong}"]}}]', "signers[0].prefixes: expected the")
            for wrong in ("/app/", "app//", "./app", "a/../b", "app\\n", "\\ud800")
        ),
        (f"signers: [{SIGNER}}}, {SIGNER}}}]", "signers: expected each name once, got ops twice"),
        (f"signers: [{SIGNER}}}, {SIGNER.replace('ops,', 'two,')}}}]", "signers: expected each key once"),
        (f"wire: pekonode\nsigners: [{SIGNER}}}]", "signers: expected none with wire pekonode"),
    ],
)
def test_wrong_signers(place: Path, text: str, told: str) -> None:
    found = problems(place, f"{BASE}secret_key_file: secret.key\n{text}\n")
    assert any(line.startswith(told) for line in found), found
