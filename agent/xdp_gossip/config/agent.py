# SPDX-License-Identifier: MIT
"""Reads and checks the agent's configuration file, and returns it as one immutable :class:`AgentConfig`.

:func:`load` reports all problems at once, each as a line ``file: key: expected ..., got ...``. One run of ``xdp-gossip
check-config`` shows all problems of a file. docs/operations.md lists the keys and their defaults.
"""

from __future__ import annotations

import datetime
import re
import socket
from dataclasses import dataclass, field
from typing import Any

from ..core.allowlist import MOST, parse_network
from ..core.settings import KEY_STATES, AgentYml, Knob, Limits, file_keys, knobs, setting
from ..core.signatures import fingerprint
from ..core.signers import Signer
from ..core.types import MAX_KEYS, MAX_NAME, MAX_PRIVATE_DATA, Address, Node
from ..signing.signers import MAX_PREFIXES, MAX_SIGNERS, check_signers, make_signer
from ..wire.keys import Key, clash, derive, is_generated
from .access import MAX_SOCKET_RIGHTS, MAX_TOKENS, SocketRight, TokenConfig, is_word, socket_rights, tokens
from .reader import ConfigError as ConfigError
from .reader import Problems, Section, parse_yaml, read_text, show
from .settings import ClusterKey, DataPlaneConfig, NodeSettings, rules
from .templates import HelperConfig, ServiceConfig, TemplateConfig, files_helper, services, templates

#: Minimum length in bytes of the secret of a native cluster, and of an API token. The keys derive from the secret by
#: HKDF, which is fast, so an attacker with one recorded packet could find a short secret by trying all secrets.
MIN_SECRET = 16

#: Maximum bytes of a Unix socket's path. The kernel's ``sun_path`` has 108 bytes, including the final NUL (unix(7)).
_MAX_SOCKET_PATH = 107

#: Maximum bytes of a configuration file.
_MAX_FILE = 1 << 20

#: Pattern of a DNS name and a port. The last label must not be a number, so that a mistyped IPv4 address is not
#: accepted as a DNS name.
_SEED_NAME = re.compile(
    r"(?P<host>(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*"
    r"(?=[^.:]*[A-Za-z])[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)\.?:(?P<port>[0-9]{1,5})"
)
#: Pattern of an interface name, by the kernel's rule (dev_valid_name): no white space, slash or colon, not "." or "..".
_INTERFACE = re.compile(r"(?!\.{1,2}$)[^\s/:]{1,15}")


#: The settings of the section ``node``, which becomes a :class:`Node`.
NODE = {
    "addr": Knob("", "required: the address at which other nodes reach this node", words="an IP address of one host"),
    "port": Knob(8000, "gossip port, UDP and TCP", least=1, most=65535),
    "name": Knob("", "name of the node; if not set, the host's name", agent=AgentYml(most=MAX_NAME, reload=True)),
    "private_data": Knob(
        "",
        "text of your choice, which every node of the cluster receives",
        agent=AgentYml(most=MAX_PRIVATE_DATA, reload=True),
    ),
}


@dataclass(frozen=True)
class ApiConfig:
    """Settings of the HTTP API.

    ``socket``: path of the API's Unix socket; "" if the API has no Unix socket. ``listen``: TCP address of the API;
    None if the API does not use TCP. ``ui``: whether the API's server also serves the web page. ``token``: the token
    from ``token_file``; None if the setting is missing.
    """

    socket: str = setting(
        "/run/xdp-gossip/api.sock",
        "Unix socket of the HTTP API",
        words=f"an absolute path of at most {_MAX_SOCKET_PATH} bytes, or empty",
    )
    listen: Address | None = setting(
        None,
        "TCP address of the HTTP API; needs `api.token_file` or `api.tokens`",
        words="ADDRESS:PORT, not the gossip address",
    )
    token_file: str = setting(
        "",
        "file with a token that has the right `admin`; [Rights](api.md#rights)",
        words="a private file",
        agent=AgentYml(reload=True),
    )
    token: str | None = field(default=None, repr=False)
    tls_cert: str = setting("", "the API's certificate in PEM", words="a file", agent=AgentYml(key="tls.cert"))
    tls_key: str = setting(
        "", "private key of the API's certificate", words="a private file", agent=AgentYml(key="tls.key")
    )
    ui: bool = setting(False, "serve the read-only web page `/ui/`")
    tokens: tuple[TokenConfig, ...] = setting(
        (),
        "tokens with their [rights](api.md#rights)",
        words=f"at most {MAX_TOKENS:,} of {{name, hash, rights, prefixes}}; rights read, write or admin",
        agent=AgentYml(reload=True),
    )
    socket_rights: tuple[SocketRight, ...] = setting(
        (),
        "[rights](api.md#rights) of the users of the Unix socket; if not set, each of them has the right `admin`",
        words=f"at most {MAX_SOCKET_RIGHTS} of {{user or group, rights, prefixes}}; rights read, write or admin",
        agent=AgentYml(reload=True),
    )
    audit_file: str = setting(
        "",
        "file to which the agent adds a record of every change and of every denial ([Audit](security.md#audit))",
        words="an absolute path, or empty",
        agent=AgentYml(reload=True),
    )


@dataclass(frozen=True)
class LogConfig:
    """Level and format of the agent's log."""

    level: str = setting(
        "info",
        "lowest severity that is logged",
        choices=("debug", "info", "warning", "error"),
        agent=AgentYml(reload=True),
    )
    format: str = setting("text", "format of log lines", choices=("text", "json"), agent=AgentYml(reload=True))


@dataclass(frozen=True)
class _Origin:
    """The fields of :class:`AgentConfig` that have no default. These fields must come before all other fields.

    A dataclass takes the fields of its last base class first, so :class:`AgentConfig` lists this class last.
    """

    path: str
    node: Node


@dataclass(frozen=True)
class AgentConfig(NodeSettings, _Origin):
    """A checked configuration: the settings of the node and of the agent.

    ``path``: path of the configuration file. ``secret_key`` is "" if ``keys`` or ``allow_insecure`` is set instead.
    """

    allow_insecure: bool = setting(False, "run without any secret")
    seeds: tuple[Address, ...] = setting(
        (),
        "nodes that the agent contacts first; the agent resolves names repeatedly",
        words="a list of ADDRESS:PORT or NAME:PORT",
        agent=AgentYml(reload=True),
    )
    #: The seeds that the configuration gives by DNS name, as (host name, port).
    seed_names: tuple[tuple[str, int], ...] = ()
    api: ApiConfig = setting(ApiConfig(), "the HTTP API", words="a section")
    log: LogConfig = setting(LogConfig(), "the agent's log", words="a section", agent=AgentYml(reload=True))
    templates: tuple[TemplateConfig, ...] = setting((), "files to render: [rendering.md](rendering.md)", words="a list")
    services: tuple[ServiceConfig, ...] = setting((), "services that read several rendered files", words="a list")
    files_helper: HelperConfig = setting(HelperConfig(), "the helper that installs rendered files", words="a section")


#: The keys at the top level of the configuration file.
_TOP = tuple(dict.fromkeys(["cluster", "node", *file_keys(AgentConfig)]))


def load(path: str) -> AgentConfig:
    """Read and check the configuration file at ``path``. Raises :class:`ConfigError` with all problems."""
    text, reason = read_text(path, _MAX_FILE)
    if text is None:
        raise ConfigError([f"{path}: file: expected a readable configuration file, got {reason}"])
    return parse(text, path)


def parse(text: str, path: str) -> AgentConfig:
    """Check the configuration ``text`` of the file ``path``. Raises :class:`ConfigError` with all problems.

    Error messages name ``path``. File names in the text are relative to the directory of ``path``.
    """
    config, problems = _understood(text, path)
    if problems:
        raise ConfigError(problems)
    # ``config`` is None only if there are problems.
    assert config is not None
    return config


def understood(path: str) -> tuple[AgentConfig | None, tuple[str, ...]]:
    """Read the file at ``path`` despite errors. Returns the configuration and all problems.

    Wrong values are replaced by defaults, so this function is for diagnosis, not for running an agent. The
    configuration is None if ``node.addr`` is missing or wrong.
    """
    text, reason = read_text(path, _MAX_FILE)
    if text is None:
        return None, (f"{path}: file: expected a readable configuration file, got {reason}",)
    config, problems = _understood(text, path)
    return config, tuple(problems)


def _understood(text: str, path: str) -> tuple[AgentConfig | None, Problems]:
    problems = Problems(path)
    data = parse_yaml(text, problems)
    if problems and data is None:
        return None, problems
    return _build(Section(problems, "", data if data is not None else {}, _TOP), path), problems


def _build(top: Section, path: str) -> AgentConfig | None:
    declared = knobs(AgentConfig)
    wire = top.setting("wire", declared["wire"])
    protocol = _protocol(top, wire)
    node = _node(top)
    insecure = top.setting("allow_insecure", declared["allow_insecure"])
    first = {"wire": wire, "protocol": protocol, "allow_insecure": insecure}
    rest = {name: knob for name, knob in rules(AgentConfig, wire, protocol).items() if name not in first}
    values = {**first, **top.settings(rest)}
    secret, keys = _secrets(top, wire, insecure, values["cluster"])
    seeds, seed_names = _seeds(top)
    known_services = services(top)
    _check_timing(top, values["cycle"], values["timeout"])
    if values["zone"] and wire == "pekonode":
        top.expected("zone", "none with wire pekonode, whose packets contain no zone", show(values["zone"]))
    values.update(
        timeout_cycles=declared["timeout_cycles"].agent_default,
        listen_addr=_listen_addr(top, node),
        secret_key=secret,
        keys=keys,
        signers=_signers(top, wire),
        seeds=seeds,
        seed_names=seed_names,
        expects_seeds=bool(seed_names),
        state_dir=top.absolute_path("state_dir", declared["state_dir"].agent_default),
        api=_api(top, node),
        log=LogConfig(**top.section("log", tuple(file_keys(LogConfig))).settings(knobs(LogConfig))),
        limits=Limits(**top.section("limits", tuple(file_keys(Limits))).settings(knobs(Limits))),
        dataplane=_data_plane(top),
        services=known_services,
        templates=templates(top, known_services),
        files_helper=files_helper(top),
    )
    return AgentConfig(path=path, node=node, **values) if node else None


def _node(top: Section) -> Node | None:
    section = top.section("node", tuple(NODE), required=True)
    address = section.ip("addr", "")
    if not section.given("addr"):
        section.expected("addr", "the address that other nodes reach this one by", "none")
    elif address and not Address.of(str(address), 1).is_one_host:
        section.expected("addr", "an address that other nodes can send to", show(str(address)))
        address = None
    rest = section.settings(NODE)
    if section.data.get("name") is None:
        rest["name"] = socket.gethostname()
    try:
        return Node(str(address), **rest) if address else None
    except ValueError:
        # The getters above have already added a problem for the invalid value.
        return None


def _listen_addr(top: Section, node: Node | None) -> str:
    own_is_v6 = node is not None and ":" in node.addr
    address = top.ip("listen_addr", "::" if own_is_v6 else "0.0.0.0")
    if address is None:
        return ""
    serves = str(address) == "::" or (address.version == 6) == own_is_v6
    if node is not None and not serves:
        top.expected("listen_addr", f"an IPv{6 if own_is_v6 else 4} address, as node.addr is one", show(str(address)))
    return str(address)


def _protocol(top: Section, wire: str) -> str:
    protocol: str = top.setting("protocol", knobs(NodeSettings)["protocol"])
    if wire == "pekonode" and protocol in ("XDP", "TC"):
        top.expected("protocol", "auto, UDP or TCP with wire pekonode, which the kernel cannot read", show(protocol))
    return protocol


def _data_plane(top: Section) -> DataPlaneConfig:
    section = top.section("dataplane", tuple(file_keys(DataPlaneConfig)))
    interface = section.text("interface", "")
    if interface and not _INTERFACE.fullmatch(interface):
        section.expected("interface", "the name of a network interface, 1 to 15 characters", show(interface))
    directory = section.absolute_path("directory", DataPlaneConfig.directory)
    plain = section.settings(knobs(DataPlaneConfig))
    return DataPlaneConfig(interface, directory.rstrip("/") or "/", allow=_allow(section), **plain)


def _allow(section: Section) -> tuple[str, ...]:
    found = []
    for number, network in enumerate(section.items("allow", MOST)):
        try:
            found.append(str(parse_network(network)))
        except ValueError:
            what = "a network such as 10.0.0.0/8 or 2001:db8::/32, the bits behind the prefix 0"
            section.expected(f"allow[{number}]", what, show(network))
    return tuple(found)


def _check_timing(top: Section, cycle: float, timeout: float) -> None:
    if cycle and timeout and timeout <= cycle:
        top.expected("timeout", f"more seconds than the cycle ({cycle:g}), or auto", f"{timeout:g}")


def _secrets(top: Section, wire: str, insecure: bool, cluster: str) -> tuple[str, tuple[ClusterKey, ...]]:
    least = 1 if wire == "pekonode" else MIN_SECRET
    secret = top.secret_file("secret_key_file", least)
    keys = _keys(top, least)
    if top.given("secret_key_file") and top.given("keys"):
        top.expected("keys", "either secret_key_file or keys", "both")
    if wire == "pekonode" and top.given("keys"):
        top.expected("keys", "secret_key_file with wire pekonode, whose packets name no key", "keys")
    if not top.given("secret_key_file") and not top.given("keys") and not insecure:
        top.expected("secret_key_file", "a file with the cluster's secret (or keys, or allow_insecure: true)", "none")
    if wire != "pekonode":
        places = [("secret_key_file", secret), *((f"keys[{at}].file", key.secret) for at, key in enumerate(keys))]
        _check_secrets(top, cluster, [(place, text) for place, text in places if text])
    return secret, keys


def _check_secrets(top: Section, cluster: str, given: list[tuple[str, str]]) -> None:
    """Add a problem for each malformed key of ``given`` (place and secret), and for two keys that clash."""
    places: list[str] = []
    found: list[Key] = []
    for place, secret in given:
        try:
            found.append(derive(cluster, secret))
            places.append(place)
        except ValueError as error:
            top.problems.append(f"{top.problems.path}: {place}: {error}")
    both = clash(found)
    if both is None:
        return
    one, other = both
    if found[one] == found[other]:
        top.expected(places[other], "each secret once", f"the secret of {places[one]} again")
    else:
        what = f"the id {found[other].id} of {places[one]}; generate another key"
        top.expected(places[other], "a key with an id of its own", what)


def _keys(top: Section, least: int) -> tuple[ClusterKey, ...]:
    found: list[ClusterKey] = []
    for index, item in enumerate(top.items("keys", most=MAX_KEYS)):
        section = Section(top.problems, f"keys[{index}]", item, ("file", "state"))
        if not section.given("file"):
            section.expected("file", "a file with this key's secret", "none")
        state = section.choice("state", "", KEY_STATES, required=True)
        found.append(ClusterKey(state, section.secret_file("file", least), section.text("file", "")))
    active = sum(key.state == "active" for key in found)
    if top.given("keys") and active != 1:
        top.expected("keys", "exactly one key with state: active", str(active))
    return tuple(found)


def _signers(top: Section, wire: str) -> tuple[Signer, ...]:
    found: list[Signer] = []
    for index, item in enumerate(top.items("signers", MAX_SIGNERS)):
        section = Section(top.problems, f"signers[{index}]", item, ("name", "public_key", "prefixes", "valid_before"))
        prefixes = [each for each in section.items("prefixes", MAX_PREFIXES) if isinstance(each, str)]
        if len(prefixes) < len(section.items("prefixes", MAX_PREFIXES)):
            section.expected("prefixes", "a list of prefixes of keys, each in quotes", "another value in the list")
            continue
        try:
            until = _time(section, "valid_before")
            found.append(make_signer(section.text("name", ""), section.text("public_key", ""), prefixes, until))
        except ValueError as error:
            top.problems.append(f"{top.problems.path}: {section.name}.{error}")
    try:
        check_signers("signers", found)
    except ValueError as error:
        top.problems.append(f"{top.problems.path}: {error}")
    if found and wire == "pekonode":
        top.expected("signers", "none with wire pekonode, which has no signed documents", f"{len(found)} signers")
    return tuple(found)


def _time(section: Section, key: str) -> datetime.datetime | None:
    """Read a time, which YAML may have parsed already. Raises ``ValueError`` if the value is no time."""
    value = section.data.get(key)
    if value is None:
        return None
    try:
        found = datetime.datetime.fromisoformat(value.replace("Z", "+00:00")) if isinstance(value, str) else value
        if not isinstance(found, datetime.datetime):
            raise ValueError
    except ValueError:
        raise ValueError(f"{key}: expected a time such as 2027-01-31T12:00:00Z, got {show(value)}") from None
    # YAML 1.1: a time without a zone is UTC. PyYAML 5.4 also drops the zone of a time in UTC.
    return found if found.tzinfo is not None else found.replace(tzinfo=datetime.timezone.utc)


def _seeds(top: Section) -> tuple[tuple[Address, ...], tuple[tuple[str, int], ...]]:
    """Read the seeds. Returns the seeds given by address, and the seeds given by DNS name."""
    seeds: dict[Address, None] = {}
    names: dict[tuple[str, int], None] = {}
    for index, item in enumerate(top.items("seeds", most=100_000)):
        try:
            if not isinstance(item, str):
                raise ValueError
            seed = Address.parse(item)
            if not seed.is_one_host:
                top.expected(f"seeds[{index}]", "the address of one host", show(item))
            seeds[seed] = None
        except ValueError:
            name = _seed_name(item)
            if name is None:
                wanted = "ADDRESS:PORT (an IPv6 address in brackets) or NAME:PORT"
                top.expected(f"seeds[{index}]", wanted, show(item))
            else:
                names[name] = None
    return tuple(seeds), tuple(names)


def _seed_name(item: object) -> tuple[str, int] | None:
    """Parse a seed given as NAME:PORT. Returns host name and port; None if ``item`` has another form."""
    match = _SEED_NAME.fullmatch(item) if isinstance(item, str) else None
    if match is None or not 1 <= int(match["port"]) <= 65535 or len(match["host"]) > 253:
        return None
    return match["host"], int(match["port"])


def _api(top: Section, node: Node | None) -> ApiConfig:
    section = top.section(
        "api", ("socket", "listen", "token_file", "tls", "ui", "tokens", "socket_rights", "audit_file")
    )
    path = section.absolute_path("socket", ApiConfig.socket, empty=True)
    if len(path.encode()) > _MAX_SOCKET_PATH:
        section.expected("socket", f"a path of at most {_MAX_SOCKET_PATH} bytes", f"{len(path.encode())}")
    listen = _api_listen(section, node)
    token = section.secret_file("token_file", MIN_SECRET)
    if token and not is_word(token):
        section.expected("token_file", "a token of printable ASCII characters without a space", "others")
    held = tokens(section, token)
    if listen and not section.text("token_file", "") and not section.given("tokens"):
        section.expected("token_file", "a file with the API token, or api.tokens, as api.listen is set", "neither")
    audit_file = section.absolute_path("audit_file", "", empty=True)
    if not path and not listen:
        section.expected("socket", "a socket path, or api.listen", "neither")
    cert, key = _tls(section)
    plain = section.settings(knobs(ApiConfig))
    return ApiConfig(
        path,
        listen,
        section.text("token_file", ""),
        token or None,
        cert,
        key,
        tokens=held,
        socket_rights=socket_rights(section),
        audit_file=audit_file,
        **plain,
    )


def _api_listen(section: Section, node: Node | None) -> Address | None:
    text = section.text("listen", "")
    if not text:
        return None
    try:
        listen = Address.parse(text)
    except ValueError:
        section.expected("listen", "ADDRESS:PORT (an IPv6 address in brackets)", show(text))
        return None
    if node is not None and listen.port == node.port:
        section.expected("listen", f"another port than node.port ({node.port}), which gossip uses over TCP", text)
    return listen


def _tls(api: Section) -> tuple[str, str]:
    section = api.section("tls", ("cert", "key"))
    cert, key = section.file("cert"), section.file("key", private=True)
    if bool(section.text("cert", "")) != bool(section.text("key", "")):
        missing = "key" if section.text("cert", "") else "cert"
        section.expected(missing, "both cert and key, or neither", "none")
    elif cert and key:
        import ssl  # imported here to save memory, because few configurations use TLS

        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
        except (OSError, ValueError) as error:
            section.expected("cert", "a PEM certificate that belongs to tls.key", str(error))
    return cert, key


def _granted(who: dict[str, Any], entry: TokenConfig | SocketRight) -> dict[str, Any]:
    return {**who, "rights": entry.rights, "prefixes": list(entry.prefixes)}


def passphrases(config: AgentConfig) -> list[str]:
    """Return the settings whose secret is a passphrase, not a generated key; none on PekoNode's wire."""
    if config.wire == "pekonode":
        return []
    given = [("secret_key_file", config.secret_key)]
    given += [(f"keys[{at}].file", key.secret) for at, key in enumerate(config.keys)]
    return [place for place, secret in given if secret and not is_generated(secret)]


def _described(config: AgentConfig) -> list[dict[str, str]]:
    """Fingerprint and state of each key; empty on PekoNode's wire and without a secret."""
    if config.wire == "pekonode" or not (config.secret_key or config.keys):
        return []
    return [
        {"fingerprint": f"{derive(config.cluster, secret).fingerprint:016x}", "state": state}
        for state, secret in config.key_pairs
    ]


def describe(config: AgentConfig) -> dict[str, Any]:
    """Return the effective settings without secrets, in the format that ``check-config --json`` prints."""
    return {
        "file": config.path,
        "cluster": config.cluster,
        "node": {"addr": config.node.addr, "port": config.node.port, "name": config.node.name},
        "protocol": config.protocol,
        "wire": config.wire,
        "authenticated": bool(config.secret_key or config.keys),
        "keys": [{**one, "id": int(one["fingerprint"][:2], 16)} for one in _described(config)],
        "passphrases": passphrases(config),
        "signers": [
            {"name": signer.name, "key": fingerprint(signer.public_key), "prefixes": list(signer.prefixes)}
            for signer in config.signers
        ],
        "seeds": [*(str(seed) for seed in config.seeds), *(f"{host}:{port}" for host, port in config.seed_names)],
        "state_dir": config.state_dir,
        "api": {
            "socket": config.api.socket,
            "listen": str(config.api.listen or ""),
            "tls": bool(config.api.tls_cert),
            "ui": config.api.ui,
            "tokens": [_granted({"name": one.name}, one) for one in config.api.tokens],
            "socket_rights": [
                _granted({"user": one.user} if one.user else {"group": one.group}, one)
                for one in config.api.socket_rights
            ],
            "audit_file": config.api.audit_file,
        },
        "dataplane": {
            "interface": config.dataplane.interface,
            "directory": config.dataplane.directory,
            "prepare_interface": config.dataplane.prepare_interface,
            "allow": list(config.dataplane.allow),
        },
        "templates": [{"name": template.name, "path": template.path} for template in config.templates],
    }
