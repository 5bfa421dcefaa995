# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: converts options to a document's bytes, and bytes to a diff. Python 3.8 or later."""

from __future__ import annotations

import json
import os
import typing as t

from ansible.module_utils.basic import missing_required_lib
from ansible.module_utils.common.yaml import HAS_YAML, yaml_dump
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import check_content_type
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._sealed import summary
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError

#: The options that provide a document's content. A task can set only one of these options.
SOURCES = ("content", "value", "src")

#: Maximum bytes of a document.
MAX_VALUE = 16 * 1024 * 1024

#: Maximum bytes of a file suffix that an agent accepts.
_MAX_SUFFIX = 32

#: Content types by the suffix of a name, the same as in the agent.
_TYPES = {".json": "json", ".yaml": "yaml", ".yml": "yaml", ".txt": "text"}

#: Maximum bytes of a text that a diff shows.
_MAX_DIFF = 256 * 1024


def content_spec() -> dict[str, t.Any]:
    """Return the argument spec of the options that describe a document's content."""
    return {
        "content": {"type": "raw", "no_log": False},
        "value": {"type": "raw", "no_log": False},
        "src": {"type": "path"},
        "remote_src": {"type": "bool"},
        "content_type": {"type": "str"},
    }


def content_of(
    params: t.Mapping[str, t.Any], read: t.Callable[[str], bytes] | None = None
) -> tuple[bytes | None, str | None]:
    """Return the bytes that ``content``, ``value`` or ``src`` describe, and the content type. The bytes are ``None`` if
    no option gives a content. The type is ``None`` if the agent must choose the type.

    The content type is the option ``content_type`` if this option is given. If ``content_type`` is not given, the type
    is the format into which the data in ``value`` was converted. The keys of the data are sorted, so that the same data
    gives the same digest on every run. ``read`` returns the bytes of the file ``src``; by default, ``read_source``.
    Raises ``ConfigError``.
    """
    kind = params["content_type"]
    if kind is not None:
        check_content_type(kind)
    if params["src"] is not None:
        return (read or read_source)(params["src"]), kind
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
    """Return the text of a ``raw`` option that must be text or a number. Raises ``ConfigError``, with ``advice``.

    An option of the type ``str`` would convert a dictionary to Python source without an error. In ansible-core 2.18, a
    template whose result looks like data becomes data, and the exact text is lost.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ConfigError(
            "%s: expected text, got %s; %send a template whose text looks like data in the filter string or to_json"
            % (option, type(value).__name__, advice)
        )
    return str(value)


def _encode(option: str, text: str) -> bytes:
    # Ansible converts bytes of its command line that are not UTF-8 to lone surrogates, which cannot be encoded as
    # UTF-8.
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError("%s: expected valid Unicode text; use src for bytes" % option) from None


def suffix_of(path: str | None) -> str:
    """Return the suffix of a file's name, from which the agent derives a content type; "" if there is no valid
    suffix.
    """
    suffix = os.path.splitext(path or "")[1]
    return suffix if suffix[1:].isalnum() and len(suffix.encode("utf-8")) <= _MAX_SUFFIX else ""


def type_of(key: str, suffix: str) -> str:
    """Return the content type that an agent derives for a new document: from the suffix of ``key``, or else from
    ``suffix``, the suffix of the file with the content.
    """
    by_key = _TYPES.get(os.path.splitext(key)[1].lower())
    return by_key or _TYPES.get(suffix.lower(), "raw")


def read_source(path: str) -> bytes:
    """Return the bytes of a file. Raises ``ConfigError`` with the file's path if the file cannot be read or is too
    large.
    """
    try:
        with open(path, "rb") as handle:
            value = handle.read(MAX_VALUE + 1)
    except OSError as exc:
        raise ConfigError("src %s: %s" % (path, exc.strerror or exc)) from None
    if len(value) > MAX_VALUE:
        raise ConfigError("src %s: expected at most %d bytes, it has more" % (path, MAX_VALUE))
    return value


def diff_text(value: bytes | None, digest: str | None, sensitive: bool) -> str:
    """Return the text of one side (before or after) of a diff. For sensitive, long or binary content, return one line
    with size and digest; for an envelope, its size, digest and recipients.

    If ``value`` is ``None``, there is no document, and the text is empty.
    """
    if value is None:
        return ""
    sealed = summary(value, str(digest))
    if sealed is not None:
        return sealed
    if sensitive:
        return "(sensitive: %d bytes, %s)\n" % (len(value), digest)
    if len(value) <= _MAX_DIFF:
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return "(%d bytes, %s)\n" % (len(value), digest)
