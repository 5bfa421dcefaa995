# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Seals the documents of a task on the controller, and finds out which documents have to be sealed again.

The target host and its member may be compromised. They get envelopes only. The controller trusts no envelope that they
return, unless its tag proves that the controller has made it.
"""

from __future__ import annotations

import base64
import binascii
import json
import typing as t

import yaml
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._content import MAX_VALUE, type_of
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._sealed import SEALED, Envelope, parse_envelope
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._wishes import Wish
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._sealing import (
    NotForThisKey,
    PublicKey,
    Sealer,
    SealingError,
)
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._sealing_keys import CONTROLLER, SealingKeys


class Held(t.NamedTuple):
    """A sealed document of the fleet, as a member returned it."""

    value: bytes
    version: str
    expires: str | None


class Resealed(t.NamedTuple):
    """A document that is sealed again: the new envelope, and the former recipients that are none any more."""

    value: bytes
    dropped: list[str]


def held_of(result: t.Mapping[str, t.Any], keys: t.Sequence[str] | None) -> dict[str, Held]:
    """Return the sealed documents in the module's result. ``keys``: the names that were asked for; ``None`` for all.

    Raises ``SealingError`` for a result that no agent of this project gives.
    """
    found = {}
    envelopes = result.get("envelopes")
    for key, entry in (envelopes if isinstance(envelopes, dict) else {}).items():
        try:
            value = base64.b64decode(entry["value"], validate=True)
            version, expires = entry["version"], entry["expires"]
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise SealingError("%s: expected sealed documents, got another answer" % result.get("endpoint")) from None
        if not isinstance(version, str) or not isinstance(expires, (str, type(None))):
            raise SealingError("%s: expected sealed documents, got another answer" % result.get("endpoint"))
        if keys is None or key in keys:
            found[key] = Held(value, version, expires)
    return found


def check_content(key: str, content: bytes, content_type: str) -> None:
    """Check what members could not check in a sealed document. Raises ``SealingError`` without any of the content."""
    if content_type == SEALED:
        raise SealingError("document %r: content_type: expected the type of the content, got sealed" % clip(key))
    if content_type not in ("text", "json", "yaml"):
        return
    problem = ""
    try:
        text = content.decode("utf-8")
        if content_type == "json":
            json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
        elif content_type == "yaml":
            yaml.safe_load(text)
    except json.JSONDecodeError as exc:
        problem = "line %d, column %d: %s" % (exc.lineno, exc.colno, exc.msg)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        problem = "line %d, column %d" % (mark.line + 1, mark.column + 1) if mark else "it cannot be parsed"
    except UnicodeDecodeError as exc:
        problem = "byte %d is not UTF-8" % exc.start
    except (ValueError, yaml.YAMLError, RecursionError):
        problem = "a key is there twice, a value is not allowed, or it is nested too deeply"
    if problem:
        raise SealingError("document %r: expected valid %s, %s" % (clip(key), content_type, problem))


def _unique(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key twice")
    return found


def _no_number(text: str) -> t.NoReturn:
    raise ValueError(text)


class SealedPublish:
    """Seals documents with the keys in one directory.

    ``groups``: the hosts of each group of the inventory. ``write``: whether the key of the controller may be created.
    Raises ``SealingError``.
    """

    def __init__(
        self,
        cluster: str,
        keys: SealingKeys,
        groups: t.Mapping[str, t.Sequence[str]],
        for_controller: bool,
        write: bool,
    ) -> None:
        self._keys = keys
        self._groups = groups
        self._sealer = Sealer(cluster, keys.controller(write))
        self._controller = [PublicKey(CONTROLLER, self._sealer.public)] if for_controller else []
        self._known: dict[str, PublicKey] | None = None

    def recipients(self, names: t.Sequence[str]) -> list[PublicKey]:
        """Return the public keys of hosts, groups and fingerprints. Raises ``SealingError``."""
        found: dict[str, PublicKey] = {}
        for name in names:
            if name.startswith("SHA256:"):
                key = self._by_fingerprint().get(name)
                if key is None:
                    told = (self._keys.directory, clip(name))
                    raise SealingError("sealed_for: expected the fingerprint of a key in %s, got %s" % told)
                found[key.name] = key
                continue
            hosts = self._groups.get(name)
            if hosts is None and name in self._groups.get("all", ()):
                hosts = [name]
            if not hosts:
                raise SealingError(
                    "sealed_for: expected hosts and groups of the inventory, got %r%s"
                    % (clip(name), " without hosts" if hosts is not None else "")
                )
            for host in hosts:
                if host not in found:
                    found[host] = self._host(host)
        if not found:
            raise SealingError("sealed_for: expected at least one host or group")
        return self._controller + list(found.values())

    def _host(self, host: str) -> PublicKey:
        key = self._keys.get(host)
        if key is None:
            raise SealingError(
                "sealed_for: host %s: expected its public key in %s, found none: deploy the agent to the host with the "
                "playbook xdp_gossip.fleet.deploy, or correct sealing_dir" % (clip(host), self._keys.path(host))
            )
        return key

    def _by_fingerprint(self) -> dict[str, PublicKey]:
        if self._known is None:
            self._known = {key.recipient.fingerprint: key for key in self._keys.all()}
        return self._known

    def seal(self, wish: Wish, held: Held | None) -> None:
        """Replace the content of ``wish`` by an envelope: that of the fleet if it is this content for these keys.

        Raises ``SealingError``.
        """
        if wish.value is None:
            raise SealingError("%s: expected a content to seal, got none" % wish.key)
        kind = wish.content_type or type_of(wish.key, wish.suffix)
        check_content(wish.key, wish.value, kind)
        keys = self.recipients(wish.sealed_for)
        envelope = _parsed(held)
        if (
            held is not None
            and envelope is not None
            and envelope.content_type == kind
            and sorted(envelope.recipients) == sorted(key.recipient for key in keys)
            and self._sealer.is_own(wish.key, envelope, wish.value)
        ):
            wish.value = held.value
        else:
            wish.value = self._sealer.seal(wish.key, wish.value, kind, keys)
        if len(wish.value) > MAX_VALUE:
            raise SealingError(
                "document %r: expected at most %d bytes once it is sealed, got %d"
                % (clip(wish.key), MAX_VALUE, len(wish.value))
            )
        wish.content_type, wish.type_counts = SEALED, True

    def reseal(self, key: str, held: Held) -> Resealed | None:
        """Seal a document for the present keys of its recipients; ``None`` if it is sealed for them already.

        Raises ``SealingError`` if this controller cannot open the document or has not made it.
        """
        envelope = _parsed(held)
        if envelope is None:
            raise SealingError("its envelope is damaged")
        wanted, dropped = [], []
        for one in envelope.recipients:
            if one.name == CONTROLLER:
                continue
            present = self._keys.get(one.name) if one.name else self._by_fingerprint().get(one.fingerprint)
            if present is None:
                dropped.append(one.name or one.fingerprint)
            else:
                wanted.append(present)
        keys = self._controller + wanted
        if sorted(envelope.recipients) == sorted(one.recipient for one in keys):
            return None
        try:
            content = self._sealer.open(key, held.value)
        except NotForThisKey as exc:
            raise SealingError("%s; its recipients have changed, so publish it from its source" % exc) from None
        if not self._sealer.is_own(key, envelope, content):
            raise SealingError("this controller has not sealed it, so a member may have; publish it from its source")
        if not wanted:
            raise SealingError("none of its recipients has a key on the controller: %s" % ", ".join(sorted(dropped)))
        return Resealed(self._sealer.seal(key, content, envelope.content_type, keys), sorted(dropped))


def _parsed(held: Held | None) -> Envelope | None:
    try:
        return parse_envelope(held.value) if held is not None else None
    except ValueError:
        return None
