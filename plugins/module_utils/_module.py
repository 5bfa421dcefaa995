# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: what the modules share beside the API. Python 3.8 or later."""

from __future__ import annotations

import json
import typing as t

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.common.yaml import HAS_YAML, yaml_dump
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import ApiError, Client, ClientError, Unreachable
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import DEFAULT_ENDPOINT, ConfigError, Settings

#: Longest text shown in a diff, bytes.
_MAX_DIFF = 256 * 1024


def connection_spec() -> dict[str, t.Any]:
    """Argument spec of the ``connection`` documentation fragment."""
    return {
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


def open_fleet(module: AnsibleModule, first_only: bool = False) -> Fleet:
    """The fleet behind the module's connection options; with ``first_only`` just the first endpoint of them."""
    settings = Settings(module.params)
    if first_only:
        del settings.endpoints[1:]
    return Fleet(Client(settings, log=module.debug))


def fail(module: AnsibleModule, exc: ClientError, **results: t.Any) -> t.NoReturn:
    """End the module with what went wrong, in words and as data."""
    if isinstance(exc, Unreachable):
        results["attempts"] = [{"endpoint": endpoint, "reason": reason} for endpoint, reason in exc.attempts]
    if isinstance(exc, ApiError):
        results["error"] = {"status": exc.status, "code": exc.code, "details": exc.details}
    module.fail_json(msg=str(exc), **results)


def content_spec() -> dict[str, t.Any]:
    """Argument spec of the options that say what a document holds."""
    return {
        "content": {"type": "str", "no_log": False},
        "value": {"type": "raw", "no_log": False},
        "src": {"type": "path"},
        "content_type": {"type": "str", "choices": ["raw", "text", "json", "yaml"]},
    }


def content_of(module: AnsibleModule) -> tuple[bytes | None, str | None]:
    """The bytes that ``content``, ``value`` or ``src`` stand for, and their content type; ``None`` without any.

    Data is written in one way only (sorted keys), so that the same data has the same digest on every run.
    Raises ``ConfigError``.
    """
    params = module.params
    kind = params["content_type"]
    if params["src"] is not None:
        return read_source(params["src"]), kind or "raw"
    if params["content"] is not None:
        return _encode("content", params["content"]), kind or "raw"
    value = params["value"]
    if value is None:
        return None, kind
    if isinstance(value, str):
        return _encode("value", value), kind or "raw"
    kind = kind or "json"
    if kind == "yaml":
        if not HAS_YAML:
            module.fail_json(msg=missing_required_lib("PyYAML", reason="to write content_type yaml"))
        text = yaml_dump(value, default_flow_style=False, sort_keys=True, allow_unicode=True)
    elif kind == "json":
        try:
            text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        except (TypeError, ValueError) as exc:
            raise ConfigError("value: expected data that JSON can express: %s" % exc) from None
    else:
        raise ConfigError("value: expected text for content_type %s, got %s" % (kind, type(value).__name__))
    return _encode("value", text), kind


def _encode(option: str, text: str) -> bytes:
    # Ansible passes bytes of its own command line that are no UTF-8 as lone surrogates.
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError("%s: expected valid Unicode text; use src for bytes" % option) from None


def read_source(path: str) -> bytes:
    """A file's bytes. Raises ``ConfigError`` naming it."""
    try:
        with open(path, "rb") as handle:
            return handle.read()
    except OSError as exc:
        raise ConfigError("src %s: %s" % (path, exc.strerror or exc)) from None


def diff_text(value: bytes | None, digest: str | None, sensitive: bool) -> str:
    """How one side of a diff is shown: the text, or a line in its place. ``None`` (absent) is the empty text."""
    if value is None:
        return ""
    if sensitive:
        return "(sensitive: %d bytes, %s)\n" % (len(value), digest)
    if len(value) <= _MAX_DIFF:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return "(%d bytes, %s)\n" % (len(value), digest)
