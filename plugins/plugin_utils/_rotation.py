# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: stores on the controller how far the rotation of a secret has got.

The state of a rotation is which files exist beside the file of the secret, so that a run that was interrupted, and each
deployment in between, can continue:

============ ============================ ==================================================================
phase        files                        keys of the hosts
============ ============================ ==================================================================
none         FILE                         FILE active
stage        FILE, FILE.next              FILE active, FILE.next staged
activate     FILE, FILE.retiring          FILE (the former FILE.next) active, FILE.retiring retiring
retire       FILE, FILE.retired           FILE active
============ ============================ ==================================================================

Each change of the phase is one rename. ``FILE.former`` lists the fingerprints of earlier secrets, so that a host that
was away during a rotation is recognised; the earlier secrets themselves are deleted.
"""

from __future__ import annotations

import os
import typing as t
from urllib.parse import unquote

from ansible_collections.xdp_gossip.fleet.plugins.module_utils import _fingerprint
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _fleet_secrets as fleet_secrets
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._fleet_secrets import Reader, SecretsError

NONE, STAGE, ACTIVATE, RETIRE = PHASES = ("none", "stage", "activate", "retire")
#: Maximum number of fingerprints in ``FILE.former``, the latest last.
MOST_FORMER = 50
#: Maximum number of keys to generate until one has an id that no other key has (255 of 256 have one).
ATTEMPTS = 100

#: Function that encrypts content with ansible-vault.
Encrypt = t.Callable[[bytes], bytes]


class Held(t.NamedTuple):
    """One secret that hosts must have: the path of its file on the controller, its state, and its fingerprint.

    For an API token the fingerprint is the hash in the form of ``api.tokens``.
    """

    path: str
    state: str
    fingerprint: str


class Rotation:
    """The rotation of the secret in the file ``path``.

    ``directory`` is the directory of secrets, which is locked for each change. ``read`` returns the decrypted content
    of a file. ``fingerprint`` returns the fingerprint of a secret; it raises ``ValueError`` for a malformed secret.
    ``ident`` returns what must differ between two secrets that hosts have at the same time.
    """

    def __init__(
        self,
        path: str,
        directory: str,
        read: Reader,
        fingerprint: t.Callable[[str], str],
        ident: t.Callable[[str], str] = str,
    ) -> None:
        self.path = path
        self._directory, self._read = directory, read
        self._fingerprint, self._ident = fingerprint, ident

    @property
    def phase(self) -> str:
        """The phase of the rotation, one of ``PHASES``."""
        if os.path.exists(self.path + ".next"):
            return STAGE
        if os.path.exists(self.path + ".retiring"):
            return ACTIVATE
        return RETIRE if os.path.exists(self.path + ".retired") else NONE

    @property
    def files(self) -> list[str]:
        """The files that contain a secret of a rotation and exist, without the file of the secret itself."""
        paths = [self.path + suffix for suffix in (".next", ".retiring", ".retired")]
        return [path for path in paths if os.path.exists(path)]

    def held(self) -> list[Held]:
        """Return the secrets that hosts must have in this phase, the active one first. Raises ``SecretsError``."""
        found = [self._held("", "active")]
        if self.phase == STAGE:
            found.append(self._held(".next", "staged"))
        # In the phase stage, FILE.retiring can only be a copy of FILE, left by a run that was killed between two steps.
        elif self.phase == ACTIVATE:
            found.append(self._held(".retiring", "retiring"))
        if len(found) > 1 and found[0].fingerprint == found[1].fingerprint:
            raise SecretsError(
                "%s: expected another secret than in %s, got the same one" % (found[1].path, found[0].path)
            )
        return found

    def retired(self) -> str:
        """Return the fingerprint of the secret that the last step of the rotation removes; "" in another phase."""
        return self._held(".retired", "").fingerprint if self.phase == RETIRE else ""

    def former(self) -> list[str]:
        """Return the fingerprints of earlier secrets. Raises ``SecretsError``."""
        try:
            with open(self.path + ".former", encoding="ascii") as stream:
                return stream.read().split()
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as exc:
            raise SecretsError("%s.former on the controller: %s" % (self.path, exc)) from None

    def begin(self, make: t.Callable[[], str], given: str, encrypt: Encrypt) -> None:
        """Write ``FILE.next``: the secret in the file ``given``, or one that ``make`` returns if ``given`` is "".

        Does nothing if a rotation is in progress. If ansible-vault has encrypted FILE, ``encrypt`` encrypts the next
        one. Raises ``SecretsError``.
        """
        with fleet_secrets.locked(self._directory):
            if self.phase != NONE:
                return
            taken = [self._held("", "active").fingerprint, *self.former()]
            secret = self._given(given, taken) if given else self._made(make, taken)
            content = secret.encode("utf-8") + b"\n"
            fleet_secrets.write(self.path + ".next", encrypt(content) if _vaulted(self.path) else content)

    def _given(self, path: str, taken: list[str]) -> str:
        told = fleet_secrets.unfit(path, self._read)
        if told:
            raise SecretsError(told[0])
        secret = self._text(path)
        found = self._print(secret, path)
        if found in taken:
            raise SecretsError("%s: expected a new secret, got the present one or an earlier one" % path)
        if self._ident(found) == self._ident(taken[0]):
            raise SecretsError(
                "%s: expected a key whose id, the first byte of its fingerprint, differs from that of the present key, "
                "got the same id %s: use another key" % (path, self._ident(found))
            )
        return secret

    def _made(self, make: t.Callable[[], str], taken: list[str]) -> str:
        for each in range(ATTEMPTS):
            secret = make()
            if self._ident(self._print(secret, "a new secret")) != self._ident(taken[0]):
                return secret
        raise SecretsError("%s: expected a new key with another id, got the same id %d times" % (self.path, ATTEMPTS))

    def activate(self) -> None:
        """Go on from the phase stage to the phase activate. Raises ``SecretsError``."""
        with fleet_secrets.locked(self._directory):
            if self.phase == STAGE:
                with open(self.path, "rb") as stream:
                    fleet_secrets.write(self.path + ".retiring", stream.read())
                os.replace(self.path + ".next", self.path)

    def retire(self) -> None:
        """Go on from the phase activate to the phase retire. Raises ``SecretsError``."""
        with fleet_secrets.locked(self._directory):
            if self.phase == ACTIVATE:
                former = self.former()
                earlier = self._held(".retiring", "").fingerprint
                if earlier not in former:
                    listed = [*former, earlier][-MOST_FORMER:]
                    fleet_secrets.write(self.path + ".former", "\n".join([*listed, ""]).encode("ascii"))
                os.replace(self.path + ".retiring", self.path + ".retired")

    def finish(self) -> None:
        """End the rotation: delete the former secret. Raises ``SecretsError``."""
        with fleet_secrets.locked(self._directory):
            if self.phase == RETIRE:
                os.unlink(self.path + ".retired")

    def _held(self, suffix: str, state: str) -> Held:
        path = self.path + suffix
        return Held(path, state, self._print(self._text(path), path))

    def _text(self, path: str) -> str:
        try:
            return self._read(path).decode("utf-8").strip()
        except Exception as exc:  # includes Ansible's own errors
            raise SecretsError("%s on the controller: %s" % (path, exc)) from None

    def _print(self, secret: str, path: str) -> str:
        try:
            return self._fingerprint(secret)
        except ValueError as exc:
            raise SecretsError("%s on the controller: %s" % (path, exc)) from None


def key_rotation(path: str, directory: str, cluster: str, read: Reader) -> Rotation:
    """Return the rotation of the cluster's key in the file ``path``."""
    return Rotation(
        path, directory, read, lambda secret: _fingerprint.fingerprint(cluster, secret), lambda one: one[:2]
    )


def token_rotation(path: str, directory: str, read: Reader) -> Rotation:
    """Return the rotation of the API token in the file ``path``."""
    return Rotation(path, directory, read, fleet_secrets.hash_of)


class NamedToken:
    """The rotation of a token of ``api.tokens``, whose hash is in the inventory.

    ``directory/tokens/NAME.next`` contains the next token. While the file exists, hosts accept both tokens. When the
    operator has put the hash of the next token into the inventory, the file is renamed to ``NAME``.
    """

    def __init__(self, directory: str, name: str, read: Reader) -> None:
        self._directory, self._name, self._read = directory, name, read
        self.path = os.path.join(directory, "tokens", fleet_secrets.file_name(name) + ".next")

    def next_hash(self) -> str:
        """Return the hash of the next token; "" if there is none. Raises ``SecretsError``."""
        if not os.path.exists(self.path):
            return ""
        told = fleet_secrets.unfit(self.path, self._read)
        if told:
            raise SecretsError(told[0])
        return fleet_secrets.hash_of(self._read(self.path).decode("utf-8").strip())

    def begin(self, given: str) -> None:
        """Write the next token, or that in the file ``given``. Raises ``SecretsError``."""
        told = fleet_secrets.unfit(given, self._read) if given else []
        if told:
            raise SecretsError(told[0])
        token = self._read(given).decode("utf-8").strip() if given else fleet_secrets.new_token()
        with fleet_secrets.locked(self._directory):
            fleet_secrets.write(self.path, token.encode("utf-8") + b"\n")

    def finish(self, present: str) -> None:
        """End the rotation if ``present``, the hash in the inventory, is that of the next token."""
        with fleet_secrets.locked(self._directory):
            if present and self.next_hash() == present:
                os.replace(self.path, self.path[: -len(".next")])


def next_tokens(directory: str, read: Reader) -> dict[str, str]:
    """Return name and hash of each next token of ``api.tokens``. Raises ``SecretsError``."""
    try:
        files = sorted(os.listdir(os.path.join(directory, "tokens")))
    except OSError:
        return {}
    names = [unquote(file[: -len(".next")]) for file in files if file.endswith(".next")]
    return {name: NamedToken(directory, name, read).next_hash() for name in names}


def _vaulted(path: str) -> bool:
    with open(path, "rb") as stream:
        return stream.read(len(fleet_secrets.VAULTED)) == fleet_secrets.VAULTED


class Run:
    """One run of a playbook that rotates a secret. Two runs at the same time would undo each other's steps.

    The file ``rotation.pid`` in the directory of the secrets names the process of the run. The process is identified by
    its number and by its start time, because numbers are reused.
    """

    def __init__(self, directory: str, process: int) -> None:
        self._path = os.path.join(directory, "rotation.pid")
        self._directory, self._process = directory, process

    def other(self) -> int:
        """Return the process of another run that is in progress; 0 if there is none."""
        try:
            with open(self._path, encoding="ascii") as stream:
                process, since = (int(word) for word in stream.read().split())
        except (OSError, ValueError):
            return 0
        return process if process != self._process and _started(process) == since else 0

    def take(self) -> None:
        """Record this run. Raises ``SecretsError`` if another run is in progress."""
        with fleet_secrets.locked(self._directory):
            other = self.other()
            if other:
                raise SecretsError(
                    "%s: expected no other run, but the process %d on the controller is rotating a secret of this "
                    "fleet: wait until it has ended" % (self._path, other)
                )
            fleet_secrets.write(self._path, b"%d %d\n" % (self._process, _started(self._process)))


def _started(process: int) -> int:
    """Return the start time of a process in ticks since the boot (proc(5), stat, field 22); -1 if there is none."""
    try:
        with open("/proc/%d/stat" % process, "rb") as stream:
            return int(stream.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return -1
