# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: from options to a document's bytes, and to the lines of a diff. Python 3.8 or later."""

from __future__ import annotations

import json
import os
import typing as t

from ansible.module_utils.basic import missing_required_lib
from ansible.module_utils.common.yaml import HAS_YAML, yaml_dump
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import check_content_type
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError

#: The options that hold a content; at most one of them is given.
SOURCES = ("content", "value", "src")

#: Bytes that a document may have.
MAX_VALUE = 16 * 1024 * 1024

#: Longest suffix that an agent takes, bytes.
_MAX_SUFFIX = 32

#: Longest text shown in a diff, bytes.
_MAX_DIFF = 256 * 1024


def content_spec() -> dict[str, t.Any]:
    """Argument spec of the options that say what a document holds."""
    return {
        "content": {"type": "raw", "no_log": False},
        "value": {"type": "raw", "no_log": False},
        "src": {"type": "path"},
        "remote_src": {"type": "bool"},
        "content_type": {"type": "str"},
    }


def content_of(params: t.Mapping[str, t.Any]) -> tuple[bytes | None, str | None]:
    """The bytes that ``content``, ``value`` or ``src`` stand for, ``None`` without any; and what type they are.

    The type is the one that was asked for, or else that of data that was written here, or else ``None``. Data is
    written in one way only (sorted keys), so that the same data has the same digest on every run.
    Raises ``ConfigError``.
    """
    kind = params["content_type"]
    if kind is not None:
        check_content_type(kind)
    if params["src"] is not None:
        return read_source(params["src"]), kind
    if params["content"] is not None:
        return _encode("content", plain_text("content", params["content"], "use value for data, or ")), kind
    value = params["value"]
    if value is None:
        return None, kind
    if isinstance(value, str):
        return _encode("value", value), kind
    kind = kind or "json"
    if kind == "yaml":
        if not HAS_YAML:
            raise ConfigError(missing_required_lib("PyYAML", reason="to write content_type yaml"))
        text = yaml_dump(value, default_flow_style=False, sort_keys=True, allow_unicode=True)
    elif kind == "json":
        try:
            text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
        except (TypeError, ValueError) as exc:
            raise ConfigError("value: expected data that JSON can express: %s" % exc) from None
    else:
        raise ConfigError("value: expected text for content_type %s, got %s" % (kind, type(value).__name__))
    return _encode("value", text), kind


def plain_text(option: str, value: t.Any, advice: str = "") -> str:
    """A ``raw`` option that must be text (or a number). Raises ``ConfigError``, with ``advice`` for data.

    Type ``str`` would turn a dictionary into Python source without a word. Templates of ansible-core 2.18 make data
    of text that looks like it, and its exact spelling is lost by then.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ConfigError(
            "%s: expected text, got %s; %send a template whose text looks like data in the filter string or to_json"
            % (option, type(value).__name__, advice)
        )
    return str(value)


def _encode(option: str, text: str) -> bytes:
    # Ansible passes bytes of its own command line that are no UTF-8 as lone surrogates.
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError("%s: expected valid Unicode text; use src for bytes" % option) from None


def suffix_of(path: str | None) -> str:
    """The suffix of a file's name, of which the agent makes a content type where nothing else says one."""
    suffix = os.path.splitext(path or "")[1]
    return suffix if suffix[1:].isalnum() and len(suffix.encode("utf-8")) <= _MAX_SUFFIX else ""


def read_source(path: str) -> bytes:
    """A file's bytes. Raises ``ConfigError`` naming it."""
    try:
        with open(path, "rb") as handle:
            value = handle.read(MAX_VALUE + 1)
    except OSError as exc:
        raise ConfigError("src %s: %s" % (path, exc.strerror or exc)) from None
    if len(value) > MAX_VALUE:
        raise ConfigError("src %s: expected at most %d bytes, it has more" % (path, MAX_VALUE))
    return value


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
