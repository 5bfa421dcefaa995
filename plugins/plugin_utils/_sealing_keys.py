# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys for sealed documents on the controller: a public key for each host, and the key of the controller.

The directory contains ``hosts/HOST.pub`` for each host, and ``controller.key``. The public keys came over ssh, so a
member cannot replace the key of another host by its own.
"""

from __future__ import annotations

import base64
import binascii
import os
import typing as t
from urllib.parse import quote, unquote

from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _fleet_secrets as fleet_secrets
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._sealing import KEY_SIZE, PublicKey, SealingError

#: Name of the controller in envelopes. A host of an inventory cannot have this name in an envelope.
CONTROLLER = "@controller"
_PUBLIC, _PRIVATE = "xdp-gossip-x25519", "xdp-gossip-x25519-private"
_FILE = "controller.key"


def decoded(line: t.Any, kind: str = _PUBLIC) -> bytes | None:
    """Return the key in a line ``KIND BASE64 NAME``; ``None`` for another text."""
    words = line.split() if isinstance(line, str) and len(line) <= 4096 else []
    if len(words) < 2 or words[0] != kind:
        return None
    try:
        raw = base64.b64decode(words[1], validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw if len(raw) == KEY_SIZE else None


def public_line(raw: bytes, name: str) -> str:
    """Return the line of a public key."""
    return "%s %s %s" % (_PUBLIC, base64.b64encode(raw).decode("ascii"), name)


class SealingKeys:
    """The directory with the keys. ``read`` returns the decrypted content of a file on the controller."""

    def __init__(self, directory: str, read: fleet_secrets.Reader) -> None:
        self.directory = directory
        self._read = read

    def path(self, host: str) -> str:
        """Return the path of the public key of a host."""
        name = quote(host, safe="")
        name = name if not name.startswith(".") else "%2E" + name[1:]
        return os.path.join(self.directory, "hosts", name + ".pub")

    def get(self, host: str) -> PublicKey | None:
        """Return the public key of a host; ``None`` if there is no key. Raises ``SealingError``."""
        path = self.path(host)
        try:
            with open(path, encoding="utf-8") as stream:
                raw = decoded(stream.read(4096))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as exc:
            raise SealingError("%s: %s" % (path, exc)) from None
        if raw is None:
            raise SealingError("%s: expected a line '%s BASE64 NAME', got another content" % (path, _PUBLIC))
        return PublicKey(host, raw)

    def all(self) -> list[PublicKey]:
        """Return the public keys of all hosts. Raises ``SealingError``."""
        try:
            names = sorted(os.listdir(os.path.join(self.directory, "hosts")))
        except FileNotFoundError:
            return []
        except OSError as exc:
            raise SealingError("%s: %s" % (self.directory, exc)) from None
        found = [self.get(unquote(name[: -len(".pub")])) for name in names if name.endswith(".pub")]
        return [key for key in found if key is not None]

    def pin(self, host: str, raw: bytes, replace: bool, write: bool) -> bool:
        """Store the public key of a host. Returns whether the stored key changes; with ``write`` false, change nothing.

        Raises ``SealingError`` if the host has another key already and ``replace`` is false, and if another host has
        the same key.
        """
        before = self.get(host)
        if before is not None and before.raw == raw:
            return False
        self._check(host, raw, before, replace)
        if write:
            try:
                with fleet_secrets.locked(self.directory):
                    # Again, because Ansible stores the keys of several hosts at the same time.
                    self._check(host, raw, before, replace)
                    fleet_secrets.write(self.path(host), (public_line(raw, host) + "\n").encode("utf-8"))
            except fleet_secrets.SecretsError as exc:
                raise SealingError(str(exc)) from None
        return True

    def _check(self, host: str, raw: bytes, before: PublicKey | None, replace: bool) -> None:
        """Raise ``SealingError`` if the controller must not accept the key ``raw`` for the host."""
        for other in self.all():
            if other.name != host and other.raw == raw:
                raise SealingError(
                    "%s: expected a sealing key of its own, got the key of %s: the state directory was copied, so both "
                    "hosts can open the same documents. Stop the agent of one of them, remove sealing.key from its "
                    "state directory, and start it" % (host, other.name)
                )
        if before is not None and not replace:
            raise SealingError(
                "%s: expected the sealing key that the controller has in %s, got another key. If the host was rebuilt, "
                "run the playbook xdp_gossip.fleet.reseal, which accepts the new key and seals all documents again. If "
                "it was not rebuilt, find out who replaced the key before you do" % (host, self.path(host))
            )

    def controller(self, write: bool) -> bytes:
        """Return the private key of the controller, and create it if there is none.

        With ``write`` false, a new key is returned but not stored. Raises ``SealingError``.
        """
        path = os.path.join(self.directory, _FILE)
        try:
            if not os.path.exists(path):
                made = os.urandom(KEY_SIZE)
                if not write:
                    return made
                with fleet_secrets.locked(self.directory):
                    if not os.path.exists(path):
                        line = "%s %s\n" % (_PRIVATE, base64.b64encode(made).decode("ascii"))
                        fleet_secrets.write(path, line.encode("ascii"))
            told = fleet_secrets._rights(path)
            text = self._read(path).decode("utf-8", "replace")
        except fleet_secrets.SecretsError as exc:
            raise SealingError(str(exc)) from None
        except Exception as exc:  # includes Ansible's own errors
            raise SealingError("%s on the controller: %s" % (path, exc)) from None
        if told:
            raise SealingError(told[0])
        raw = decoded(text, _PRIVATE)
        if raw is None:
            raise SealingError("%s on the controller: expected a line '%s BASE64', got another" % (path, _PRIVATE))
        return raw
