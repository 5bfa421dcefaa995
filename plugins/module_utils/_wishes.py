# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: checks the options that describe documents to publish. Python 3.8 or later."""

from __future__ import annotations

import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._content import (
    SOURCES,
    content_of,
    content_spec,
    suffix_of,
)
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._expiry import seconds_of
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import check_key
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError

#: If an entry of ``documents`` does not set one of these options, the module's option of the same name applies to the
#: entry.
_SHARED = ("state", "content_type", "remote_src", "expires", "author", "comment", "sealed_for")


class Wish:
    """The wanted state of one document, built from checked options. Raises ``ConfigError``."""

    def __init__(self, key: str, options: t.Mapping[str, t.Any], read: t.Callable[[str], bytes] | None = None) -> None:
        self.key = check_key(key)
        self.value: bytes | None = None
        self.content_type: str | None = None
        self.rollback_to: str | None = options.get("rollback_to")
        if options["state"] == "present" and self.rollback_to is None:
            self.value, self.content_type = content_of(options, read)
            if self.value is None:
                # Ansible's own checks accept an option whose value is null. Without this error, the module would delete
                # the document if the value is null.
                raise ConfigError("expected one of %s with state=present, got none" % ", ".join(SOURCES))
        self.suffix = suffix_of(options["src"])
        #: Whether to write the document if only its content type differs from the wanted type; true if the task sets a
        #: type.
        self.type_counts = options["content_type"] is not None
        self.if_version: str | None = options["if_version"]
        #: Lifetime in seconds. 0: no expiry. ``None``: the option ``expires`` is not given.
        self.expires = seconds_of(options.get("expires"))
        self.author: str | None = options["author"]
        self.comment: str | None = options["comment"]
        #: Hosts, groups and fingerprints for which the document is sealed on the controller; empty: it is not sealed.
        self.sealed_for: list[str] = options.get("sealed_for") or []
        #: Fingerprint of the key that must have signed the document; ``None`` if the task signs nothing.
        self.signer: str | None = None


def document_spec() -> dict[str, t.Any]:
    """Return the argument spec of the options that describe one document. Both the module and each entry of
    ``documents`` have these options.
    """
    return dict(
        content_spec(),
        state={"type": "str", "choices": ["present", "absent"]},
        if_version={"type": "str"},
        expires={"type": "str"},
        author={"type": "str"},
        comment={"type": "str"},
        sealed_for={"type": "list", "elements": "str"},
    )


def wishes_of(params: t.Mapping[str, t.Any], read: t.Callable[[str], bytes] | None = None) -> list[Wish]:
    """Check the options and return one ``Wish``, the wanted state, for each document. Raises ``ConfigError`` if an
    option is invalid; the message names the document and the option. ``read`` is as for ``content_of``.
    """
    if params["documents"] is None:
        return [Wish("default" if params["key"] is None else params["key"], params, read)]
    shared = {name: params[name] for name in _SHARED}
    validator = ArgumentSpecValidator(document_spec(), mutually_exclusive=[SOURCES])
    wishes = []
    for key, entry in params["documents"].items():
        try:
            if entry is not None and not isinstance(entry, dict):
                raise ConfigError("expected a dictionary of options, got %s" % type(entry).__name__)
            checked = validator.validate(entry or {})
            if checked.error_messages:
                raise ConfigError("; ".join(checked.error_messages))
            options = dict(checked.validated_parameters)
            options.update({name: value for name, value in shared.items() if options[name] is None})
            wishes.append(Wish(str(key), options, read))
        except ConfigError as exc:
            raise ConfigError("documents, %r: %s" % (clip(str(key)), exc)) from None
    return wishes
