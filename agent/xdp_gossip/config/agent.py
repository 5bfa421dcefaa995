# SPDX-License-Identifier: MIT
"""The agent's configuration file: read, checked completely, and turned into one immutable value.

:func:`load` reports every problem at once, each as ``FILE: KEY: expected WHAT, got WHAT``, so that one look
at ``xdp-gossip check-config`` is enough. Keys and defaults: docs/operations.md.
"""

from __future__ import annotations

import re
import socket
from dataclasses import dataclass, field
from typing import Any

from ..core.allowlist import MOST, parse_network
from ..core.interface import MIN_CYCLE
from ..core.types import MAX_NAME, MAX_PRIVATE_DATA, Address, Node
from ..transport import largest_size
from .reader import ConfigError, Problems, Section, parse_yaml, read_text, show
from .templates import HelperConfig, ServiceConfig, TemplateConfig, files_helper, services, templates

__all__ = [
    "AgentConfig",
    "ApiConfig",
    "ConfigError",
    "DataPlaneConfig",
    "KeySlot",
    "Limits",
    "LogConfig",
    "load",
    "parse",
    "understood",
]

#: Shortest secret of a native cluster and shortest API token, in bytes. Keys are derived from the secret with
#: HKDF, which does not slow a guesser down: a short one could be searched for with one recorded packet.
MIN_SECRET = 16

#: The kernel's ``sun_path`` holds 108 bytes with the final NUL (unix(7)).
_MAX_SOCKET_PATH = 107

#: Bytes of a configuration file.
_MAX_FILE = 1 << 20

_CLUSTER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: A name of DNS and a port; the last label is no number, so that a mistyped address is not taken for a name.
_SEED_NAME = re.compile(
    r"(?P<host>(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)*"
    r"(?=[^.:]*[A-Za-z])[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)\.?:(?P<port>[0-9]{1,5})"
)
#: As the kernel has it (dev_valid_name): no white space, no slash, no colon, not "." or "..".
_INTERFACE = re.compile(r"(?!\.{1,2}$)[^\s/:]{1,15}")
#: ``XDP`` and ``TC`` insist on the kernel data plane in that mode, ``auto`` takes the best that there is.
PROTOCOLS = ("auto", "XDP", "TC", "UDP", "TCP")
_SLOT_STATES = ("staged", "active", "retiring")
_TOP = (
    *("cluster", "node", "listen_addr", "protocol", "wire", "amount", "cycle", "timeout", "buffer", "size"),
    *("secret_key_file", "keys", "allow_insecure", "seeds", "state_dir", "max_clock_drift"),
    *("api", "log", "limits", "is_print", "dataplane", "history", "tombstone_grace", "wait_for_members"),
    *("templates", "services", "files_helper"),
)


@dataclass(frozen=True)
class KeySlot:
    """One cluster key: slot ``id`` (0-255), ``state`` (staged, active, retiring), and the secret from ``file``."""

    id: int
    state: str
    file: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class ApiConfig:
    """Where the HTTP API listens. ``socket`` "" and ``listen`` None mean: not there. ``ui``: also the web page."""

    socket: str = "/run/xdp-gossip/api.sock"
    listen: Address | None = None
    token_file: str = ""
    token: str | None = field(default=None, repr=False)
    tls_cert: str = ""
    tls_key: str = ""
    ui: bool = False


@dataclass(frozen=True)
class LogConfig:
    """``level`` debug, info, warning or error; ``format`` text or json."""

    level: str = "info"
    format: str = "text"


@dataclass(frozen=True)
class Limits:
    """Most bytes of one document, most nodes known, most documents held, most bytes of all documents together."""

    document: int = 16 * 1024 * 1024
    nodes: int = 20_000
    documents: int = 100_000
    store: int = 1024 * 1024 * 1024


@dataclass(frozen=True)
class DataPlaneConfig:
    """Where the loader attaches the kernel data plane, and where agent and loader meet.

    ``interface`` "": the one that has ``node.addr``. ``prepare_interface``: the loader may change offloads and queues
    of the interface that stand in a mode's way. ``allow``: networks that may speak to this node, over whatever
    protocol; none: all.
    """

    interface: str = ""
    directory: str = "/run/xdp-gossip-dataplane"
    prepare_interface: bool = False
    allow: tuple[str, ...] = ()


@dataclass(frozen=True)
class AgentConfig:
    """A checked configuration.

    ``cycle`` and ``timeout`` are seconds, 0 for auto; ``buffer`` is in datagrams, 0 for auto; ``secret_key`` is ""
    when ``keys`` or ``allow_insecure`` stands in for it; ``history`` is in versions; ``tombstone_grace`` and
    ``wait_for_members`` (None: never) are in seconds.
    """

    path: str
    node: Node
    cluster: str = "default"
    listen_addr: str = "0.0.0.0"
    protocol: str = "auto"
    wire: str = "native"
    amount: int = 4
    cycle: float = 0.0
    timeout: float = 0.0
    buffer: int = 0
    size: int = 16384
    secret_key: str = field(default="", repr=False)
    keys: tuple[KeySlot, ...] = ()
    allow_insecure: bool = False
    seeds: tuple[Address, ...] = ()
    #: Seeds that are given by name: (host, port).
    seed_names: tuple[tuple[str, int], ...] = ()
    state_dir: str = "/var/lib/xdp-gossip"
    max_clock_drift: float = 60.0
    api: ApiConfig = ApiConfig()
    log: LogConfig = LogConfig()
    limits: Limits = Limits()
    is_print: bool = False
    dataplane: DataPlaneConfig = DataPlaneConfig()
    history: int = 10
    tombstone_grace: float = 604_800.0
    wait_for_members: float | None = 60.0
    templates: tuple[TemplateConfig, ...] = ()
    services: tuple[ServiceConfig, ...] = ()
    files_helper: HelperConfig = field(default_factory=HelperConfig)


def load(path: str) -> AgentConfig:
    """Read and check the file at ``path``. Raises :class:`ConfigError` with every problem found."""
    text, reason = read_text(path, _MAX_FILE)
    if text is None:
        raise ConfigError([f"{path}: file: expected a readable configuration file, got {reason}"])
    return parse(text, path)


def parse(text: str, path: str) -> AgentConfig:
    """Check configuration ``text``; ``path`` names it in errors and is what relative file names count from.

    Raises :class:`ConfigError`.
    """
    config, problems = _understood(text, path)
    if problems:
        raise ConfigError(problems)
    assert config is not None  # without a problem every required value was there
    return config


def understood(path: str) -> tuple[AgentConfig | None, tuple[str, ...]]:
    """What can be understood of the file at ``path``, and every problem; a wrong setting has its default.

    For looking at a host, not for running an agent. None where not even ``node.addr`` can be understood.
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
    wire = top.choice("wire", "native", ("native", "pekonode"))
    protocol = _protocol(top, wire)
    node = _node(top)
    secret, keys, insecure = _secrets(top, wire)
    settings: dict[str, Any] = {
        "cluster": _cluster(top),
        "listen_addr": _listen_addr(top, node),
        "protocol": protocol,
        "wire": wire,
        "amount": top.integer("amount", 4, 1, 64),
        "cycle": top.number("cycle", 0.0, MIN_CYCLE, 3600, auto=True),
        "timeout": top.number("timeout", 0.0, 0.1, 86400, auto=True),
        "buffer": top.integer("buffer", 0, 1, 1_000_000, auto=True),
        "size": top.integer("size", 16384, 1024 if wire == "pekonode" else 4096, largest_size(wire, protocol)),
        "secret_key": secret,
        "keys": keys,
        "allow_insecure": insecure,
        **dict(zip(("seeds", "seed_names"), _seeds(top))),
        "state_dir": top.absolute_path("state_dir", "/var/lib/xdp-gossip"),
        "max_clock_drift": top.number("max_clock_drift", 60.0, 0.1, 86400),
        "api": _api(top, node),
        "log": _log(top),
        "limits": _limits(top),
        "is_print": top.boolean("is_print", False),
        "dataplane": _data_plane(top),
        "history": top.integer("history", 10, 1, 1000),
        "tombstone_grace": top.number("tombstone_grace", 604_800.0, 3600, 316_224_000),
        "wait_for_members": _wait_for_members(top),
        "services": (known_services := services(top)),
        "templates": templates(top, known_services),
        "files_helper": files_helper(top),
    }
    _check_timing(top, settings["cycle"], settings["timeout"])
    return AgentConfig(path=path, node=node, **settings) if node else None


def _wait_for_members(top: Section) -> float | None:
    if top.data.get("wait_for_members") == "never":
        return None
    return top.number("wait_for_members", 60.0, 0, 86_400)


def _cluster(top: Section) -> str:
    name = top.text("cluster", "default")
    if not _CLUSTER.fullmatch(name):
        top.expected("cluster", "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit", show(name))
    return name


def _node(top: Section) -> Node | None:
    section = top.section("node", ("addr", "port", "name", "private_data"), required=True)
    address = section.ip("addr", "")
    if not section.given("addr"):
        section.expected("addr", "the address that other nodes reach this one by", "none")
    elif address and not Address.of(str(address), 1).is_one_host:
        section.expected("addr", "an address that other nodes can send to", show(str(address)))
        address = None
    port = section.integer("port", 8000, 1, 65535)
    name = section.text("name", socket.gethostname(), most=MAX_NAME)
    private_data = section.text("private_data", "", most=MAX_PRIVATE_DATA)
    try:
        return Node(str(address), port, name, private_data) if address else None
    except ValueError:
        return None  # each part has been reported above


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
    protocol = top.choice("protocol", "auto", PROTOCOLS)
    if wire == "pekonode" and protocol in ("XDP", "TC"):
        top.expected("protocol", "auto, UDP or TCP with wire pekonode, which the kernel cannot read", show(protocol))
    return protocol


def _data_plane(top: Section) -> DataPlaneConfig:
    section = top.section("dataplane", ("interface", "directory", "prepare_interface", "allow"))
    interface = section.text("interface", "")
    if interface and not _INTERFACE.fullmatch(interface):
        section.expected("interface", "the name of a network interface, 1 to 15 characters", show(interface))
    directory = section.absolute_path("directory", DataPlaneConfig.directory)
    prepare = section.boolean("prepare_interface", DataPlaneConfig.prepare_interface)
    return DataPlaneConfig(interface, directory.rstrip("/") or "/", prepare, _allow(section))


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


def _secrets(top: Section, wire: str) -> tuple[str, tuple[KeySlot, ...], bool]:
    insecure = top.boolean("allow_insecure", False)
    least = 1 if wire == "pekonode" else MIN_SECRET
    secret = top.secret_file("secret_key_file", least)
    keys = _key_slots(top, least)
    if top.given("secret_key_file") and top.given("keys"):
        top.expected("keys", "either secret_key_file or keys", "both")
    if wire == "pekonode" and top.given("keys"):
        top.expected("keys", "secret_key_file with wire pekonode, whose packets carry no key slot", "keys")
    if not top.given("secret_key_file") and not top.given("keys") and not insecure:
        top.expected("secret_key_file", "a file with the cluster's secret (or keys, or allow_insecure: true)", "none")
    return secret, keys, insecure


def _key_slots(top: Section, least: int) -> tuple[KeySlot, ...]:
    slots: list[KeySlot] = []
    seen: set[int] = set()
    items = top.items("keys", most=256)
    for index, item in enumerate(items):
        section = Section(top.problems, f"keys[{index}]", item, ("id", "file", "state"))
        if not section.given("id"):
            section.expected("id", "a slot from 0 to 255", "none")
        number = section.integer("id", -1, 0, 255)
        if number in seen:
            section.expected("id", "a slot that no other key uses", str(number))
        seen.add(number)
        if not section.given("file"):
            section.expected("file", "a file with this key's secret", "none")
        state = section.choice("state", "", _SLOT_STATES, required=True)
        file = section.text("file", "")
        slots.append(KeySlot(number, state, file, section.secret_file("file", least)))
    active = sum(slot.state == "active" for slot in slots)
    if top.given("keys") and active != 1:
        top.expected("keys", "exactly one key with state: active", str(active))
    return tuple(slots)


def _seeds(top: Section) -> tuple[tuple[Address, ...], tuple[tuple[str, int], ...]]:
    """Seeds by address, and seeds by name."""
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
    """Host and port of a seed that is given by name; None when it is none."""
    match = _SEED_NAME.fullmatch(item) if isinstance(item, str) else None
    if match is None or not 1 <= int(match["port"]) <= 65535 or len(match["host"]) > 253:
        return None
    return match["host"], int(match["port"])


def _api(top: Section, node: Node | None) -> ApiConfig:
    section = top.section("api", ("socket", "listen", "token_file", "tls", "ui"))
    path = section.absolute_path("socket", ApiConfig.socket, empty=True)
    if len(path.encode()) > _MAX_SOCKET_PATH:
        section.expected("socket", f"a path of at most {_MAX_SOCKET_PATH} bytes", f"{len(path.encode())}")
    listen = _api_listen(section, node)
    token = section.secret_file("token_file", MIN_SECRET)
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        section.expected("token_file", "a token of printable ASCII characters without a space", "others")
    if listen and not section.text("token_file", ""):
        section.expected("token_file", "a file with the API token, as api.listen is set", "none")
    if not path and not listen:
        section.expected("socket", "a socket path, or api.listen", "neither")
    cert, key = _tls(section)
    ui = section.boolean("ui", False)
    return ApiConfig(path, listen, section.text("token_file", ""), token or None, cert, key, ui)


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
        import ssl  # only a configuration with TLS needs it

        try:
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(cert, key)
        except (OSError, ValueError) as error:
            section.expected("cert", "a PEM certificate that belongs to tls.key", str(error))
    return cert, key


def _log(top: Section) -> LogConfig:
    section = top.section("log", ("level", "format"))
    return LogConfig(
        section.choice("level", "info", ("debug", "info", "warning", "error")),
        section.choice("format", "text", ("text", "json")),
    )


def _limits(top: Section) -> Limits:
    section = top.section("limits", ("document", "nodes", "documents", "store"))
    return Limits(
        section.integer("document", Limits.document, 1024, 256 * 1024 * 1024),
        section.integer("nodes", Limits.nodes, 2, 100_000),
        section.integer("documents", Limits.documents, 1, 1_000_000),
        section.integer("store", Limits.store, 1024 * 1024, 64 * 1024 * 1024 * 1024),
    )


def describe(config: AgentConfig) -> dict[str, Any]:
    """What ``check-config --json`` prints: the effective settings, with no secret in them."""
    return {
        "file": config.path,
        "cluster": config.cluster,
        "node": {"addr": config.node.addr, "port": config.node.port, "name": config.node.name},
        "protocol": config.protocol,
        "wire": config.wire,
        "authenticated": bool(config.secret_key or config.keys),
        "keys": [{"id": slot.id, "state": slot.state} for slot in config.keys],
        "seeds": [*(str(seed) for seed in config.seeds), *(f"{host}:{port}" for host, port in config.seed_names)],
        "state_dir": config.state_dir,
        "api": {
            "socket": config.api.socket,
            "listen": str(config.api.listen or ""),
            "tls": bool(config.api.tls_cert),
            "ui": config.api.ui,
        },
        "dataplane": {
            "interface": config.dataplane.interface,
            "directory": config.dataplane.directory,
            "prepare_interface": config.dataplane.prepare_interface,
            "allow": list(config.dataplane.allow),
        },
        "templates": [{"name": template.name, "path": template.path} for template in config.templates],
    }
