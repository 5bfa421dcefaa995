# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: reads and checks the connection options. The code needs only the standard library of
Python 3.8 or later.
"""

from __future__ import annotations

import copy
import os
import ssl
import typing as t
from urllib.parse import urlsplit

#: Default endpoint and default TCP port of an agent's API.
DEFAULT_ENDPOINT = "unix:///run/xdp-gossip/api.sock"
DEFAULT_PORT = 8001
MAX_TOKEN = 4096

#: The connection options. Modules build their argument spec from this table. A test compares the table with the
#: documentation fragment ``connection``. ENVIRONMENT names the environment variable that can set each option.
OPTIONS: dict[str, dict[str, t.Any]] = {
    "endpoints": {"type": "list", "elements": "str", "default": [DEFAULT_ENDPOINT]},
    "token": {"type": "str", "no_log": True},
    "token_file": {"type": "path", "no_log": False},
    "ca_path": {"type": "path"},
    "client_cert": {"type": "path"},
    "client_key": {"type": "path", "no_log": False},
    "validate_certs": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 10.0},
    "retries": {"type": "int", "default": 1},
}
ENVIRONMENT = {option: "XDP_GOSSIP_" + option.upper() for option in OPTIONS}


class ClientError(Exception):
    """Base class of all errors of the client; ``str()`` is a message for the user."""


class BadAnswer(ClientError):
    """Raised if a member's answer violates the API or exceeds a limit."""


class ConfigError(ClientError):
    """Raised if the value of an option, such as an endpoint, token or TLS file, cannot be used."""


class Endpoint:
    """The parsed URL of a member's API. The URL is ``unix:///path``, ``http://host:port`` or ``https://host:port``."""

    def __init__(self, url: str) -> None:
        self.url = url.strip().rstrip("/")
        self.path = ""
        self.host = ""
        self.port = 0
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError as exc:
            raise ConfigError("endpoint %r: %s" % (url, exc)) from None
        self.scheme = parts.scheme
        if self.scheme == "unix":
            if parts.netloc or not parts.path.startswith("/"):
                raise ConfigError("endpoint %r: expected unix:///absolute/path" % url)
            self.path = parts.path
            return
        if self.scheme not in ("http", "https"):
            raise ConfigError("endpoint %r: expected unix:///path, http://host:port or https://host:port" % url)
        if not parts.hostname or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
            raise ConfigError("endpoint %r: expected only a host and a port after %s://" % (url, self.scheme))
        self.host = parts.hostname
        self.port = DEFAULT_PORT if port is None else port

    @property
    def authority(self) -> str:
        """Return the value of the Host header."""
        if self.scheme == "unix":
            return "localhost"
        return "%s:%d" % ("[%s]" % self.host if ":" in self.host else self.host, self.port)


class Settings:
    """The checked connection options, with names and defaults as in ``OPTIONS``. Raises ``ConfigError``."""

    def __init__(self, options: t.Mapping[str, t.Any]) -> None:
        given: dict[str, t.Any] = {name: options.get(name) for name in OPTIONS}
        for name, spec in OPTIONS.items():
            if given[name] is None:
                given[name] = spec.get("default")
        self.endpoints = [Endpoint(str(url)) for url in given["endpoints"]]
        if not self.endpoints:
            # An empty list, which may be the result of a template, is an error. If the module used the default endpoint
            # instead, it would talk to the local agent by mistake.
            raise ConfigError("endpoints: expected at least one, got an empty list")
        self.timeout = float(given["timeout"])
        self.retries = int(given["retries"])
        if not 0 < self.timeout <= 3600:
            raise ConfigError("timeout: expected more than 0 and at most 3600 seconds, got %r" % self.timeout)
        if not 0 <= self.retries <= 100:
            raise ConfigError("retries: expected 0 to 100, got %r" % self.retries)
        self.token = _read_token(given["token"], given["token_file"])
        self._validate_certs = given["validate_certs"] is not False
        self._ca_path = given["ca_path"]
        self._client_cert = given["client_cert"]
        self._client_key = given["client_key"]
        if self._client_key and not self._client_cert:
            raise ConfigError("client_key: expected client_cert beside it")
        self._context: ssl.SSLContext | None = None

    def at(self, url: str) -> Settings:
        """Return a copy of these settings with ``url`` as the only endpoint."""
        other = copy.copy(self)
        other.endpoints = [Endpoint(url)]
        return other

    def tls(self) -> ssl.SSLContext:
        """Return the TLS context, which the first call creates. Raises ``ConfigError`` if a TLS file cannot be used;
        the message names the file.
        """
        if self._context is None:
            self._context = self._make_context()
        return self._context

    def _make_context(self) -> ssl.SSLContext:
        try:
            # If ca_path is set, trust only the authorities in ca_path and no public authority.
            if self._ca_path and os.path.isdir(self._ca_path):
                context = ssl.create_default_context(capath=self._ca_path)
            else:
                context = ssl.create_default_context(cafile=self._ca_path or None)
        except (OSError, ssl.SSLError) as exc:
            raise ConfigError("ca_path %s: %s" % (self._ca_path, exc)) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._client_cert:
            try:
                context.load_cert_chain(self._client_cert, self._client_key or None)
            except (OSError, ssl.SSLError) as exc:
                raise ConfigError("client_cert %s: %s" % (self._client_cert, exc)) from None
        if not self._validate_certs:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def _read_token(token: str | None, path: str | None) -> str:
    if token and path:
        raise ConfigError("token and token_file: expected only one of them")
    source = "token"
    if path:
        source = "token_file %s" % path
        try:
            with open(os.path.expanduser(path), "rb") as handle:
                token = handle.read(MAX_TOKEN + 1).decode("ascii")
        except (OSError, UnicodeDecodeError) as exc:
            raise ConfigError("%s: expected a readable file with one line of ASCII: %s" % (source, exc)) from None
    token = (token or "").strip()
    if path and not token:
        raise ConfigError("%s: expected a token, the file is empty" % source)
    if len(token) > MAX_TOKEN or any(not "\x21" <= char <= "\x7e" for char in token):
        raise ConfigError("%s: expected at most %d printable ASCII characters without spaces" % (source, MAX_TOKEN))
    return token
