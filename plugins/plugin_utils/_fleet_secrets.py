# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: checks a fleet's secrets on the controller and creates missing secrets.

The directory of secrets contains ``secret.key``, ``api.token``, ``ca.crt``, ``ca.key`` and ``members``. The
subdirectory ``hosts/`` contains a certificate and a key for each host. The file ``members`` lists the hosts that have
been deployed with these secrets. Only the owner of a file with a secret may read it. Other users may read a file that
ansible-vault has encrypted, for example in a repository.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import fcntl
import hashlib
import os
import secrets
import stat
import string
import typing as t
from urllib.parse import quote

from ansible_collections.xdp_gossip.fleet.plugins.module_utils import _fingerprint
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils import _authority

#: Function that returns the decrypted content of a file on the controller. Raises ``OSError`` or an error of Ansible.
Reader = t.Callable[[str], bytes]

VAULTED = b"$ANSIBLE_VAULT;"
LETTERS = string.ascii_letters + string.digits
LENGTH = 43
#: Minimum length, in characters, of the secret key, of the API token and of each further key. Each secret is
#: the only line of its file.
LEAST = 16
#: Suffixes of the files beside the file of a secret that contain the other secrets of a rotation (``_rotation.py``).
ROTATING = (".next", ".retiring", ".retired")


def new_key() -> str:
    """Return a new key of a cluster: ``xgk1_`` and 256 random bits in base64url."""
    return _fingerprint.GENERATED + base64.urlsafe_b64encode(secrets.token_bytes(32)).decode("ascii").rstrip("=")


def new_token() -> str:
    """Return a new API token."""
    return "".join(secrets.choice(LETTERS) for each in range(LENGTH))


def hash_of(token: str) -> str:
    """Return the hash of an API token in the form of ``api.tokens``."""
    return "sha256:" + hashlib.sha256(token.encode("utf-8")).hexdigest()


class SecretsError(Exception):
    """Raised if the secrets cannot be used; ``str()`` names the file, the reason and the remedy."""


class Wanted(t.NamedTuple):
    """The secrets that a host needs from the controller. Paths are absolute. An empty path means that the host does not
    need this file.
    """

    cluster: str
    directory: str
    secret: str
    token: str
    #: Files that the user provides. Each file contains one key.
    keys: list[str]
    #: The authority's certificate and key, the host's inventory name, and the names for the host's certificate.
    ca_cert: str
    ca_key: str
    host: str
    names: list[str]

    @property
    def certificate(self) -> str:
        """Return the path of the host's certificate."""
        return os.path.join(self.directory, "hosts", file_name(self.host) + ".crt")

    @property
    def key(self) -> str:
        """Return the path of the key of the host's certificate."""
        return os.path.join(self.directory, "hosts", file_name(self.host) + ".key")


def file_name(text: str) -> str:
    """Return the name of a host or a token in a form that cannot lead out of a directory."""
    name = quote(text, safe="")
    return name if not name.startswith(".") else "%2E" + name[1:]


def missing(wanted: Wanted) -> list[str]:
    """Return the paths of the fleet's files that do not exist. A host cannot join the fleet if one of the fleet's files
    is missing on the controller.
    """
    # The authority's key may be stored elsewhere, because the controller needs this key only to issue a certificate.
    fleet = [wanted.secret, wanted.token, wanted.ca_cert]
    return [path for path in fleet if path and not os.path.exists(path)]


def problems(wanted: Wanted, read: Reader) -> list[str]:
    """Return the problems with existing files, one sentence each."""
    told = []
    secret = [wanted.secret, wanted.token, *wanted.keys]
    secret += [path + suffix for path in (wanted.secret, wanted.token) if path for suffix in ROTATING]
    for path in [*secret, wanted.ca_key, wanted.key if wanted.ca_cert else ""]:
        if path and os.path.exists(path):
            told += _rights(path)
    for path in secret:
        if path and os.path.exists(path):
            told += _line(path, read)
    for path in wanted.keys:
        if not os.path.exists(path):
            told.append("%s: expected a key, found no file" % path)
    if wanted.ca_cert and os.path.exists(wanted.ca_cert):
        try:
            if not _authority.is_authority(read(wanted.ca_cert)):
                told.append("%s: expected the certificate of an authority (CA: true), got another" % wanted.ca_cert)
        except Exception as exc:  # includes Ansible's own errors
            told.append("%s: %s" % (wanted.ca_cert, exc))
    return told


def stale(wanted: Wanted, read: Reader, now: datetime.datetime) -> str:
    """Return the reason why the host needs a new certificate; "" if it does not need a new certificate. Raises
    ``SecretsError``.
    """
    if not wanted.ca_cert:
        return ""
    if not os.path.exists(wanted.ca_cert):
        return "there is no authority yet"
    if not os.path.exists(wanted.certificate) or not os.path.exists(wanted.key):
        return "there is none yet"
    try:
        held = _authority.Pair(read(wanted.certificate), read(wanted.key))
        return _authority.stale(held, read(wanted.ca_cert), wanted.names, now)
    except ValueError as exc:
        raise SecretsError("%s: %s" % (wanted.ca_cert, exc)) from None


def make(wanted: Wanted, read: Reader, now: datetime.datetime) -> list[str]:
    """Create missing files and renew the host's certificate if needed. Returns the paths of the files that it has
    written.

    Raises ``SecretsError``.
    """
    with locked(wanted.directory):
        made = []
        for path, new in ((wanted.secret, new_key), (wanted.token, new_token)):
            if path and not os.path.exists(path):
                write(path, new().encode("ascii") + b"\n")
                made.append(path)
        if wanted.ca_cert and not os.path.exists(wanted.ca_cert):
            if os.path.exists(wanted.ca_key):
                told = "%s: found the authority's key, but not its certificate %s: bring both, or neither"
                raise SecretsError(told % (wanted.ca_key, wanted.ca_cert))
            pair = _authority.found(wanted.cluster, now)
            write(wanted.ca_key, pair.key)
            write(wanted.ca_cert, pair.certificate)
            made += [wanted.ca_cert, wanted.ca_key]
        if stale(wanted, read, now):
            made += _issue(wanted, read, now)
        return made


def _issue(wanted: Wanted, read: Reader, now: datetime.datetime) -> list[str]:
    if not os.path.exists(wanted.ca_key):
        raise SecretsError(
            "%s: expected the authority's key, to sign the certificate of %s: found no file. Bring it, or give the "
            "host a certificate with xdp_gossip_agent_api_tls_cert and xdp_gossip_agent_api_tls_key"
            % (wanted.ca_key, wanted.host)
        )
    try:
        pair = _authority.issue(
            _authority.Pair(read(wanted.ca_cert), read(wanted.ca_key)), wanted.host, wanted.names, now
        )
    except ValueError as exc:
        raise SecretsError("%s and %s: %s" % (wanted.ca_cert, wanted.ca_key, exc)) from None
    write(wanted.key, pair.key)
    write(wanted.certificate, pair.certificate)
    return [wanted.certificate, wanted.key]


def strangers(wanted: Wanted, fleet: t.Sequence[str]) -> list[str]:
    """Return all hosts that have been deployed with the secrets in ``wanted``, if none of these hosts is in ``fleet``.
    Return an empty list if at least one of these hosts is in ``fleet``.

    A result that is not empty means that the secrets belong to another fleet.
    """
    known = _members(wanted)
    return [] if set(known) & set(fleet) else known


def remembered(wanted: Wanted) -> bool:
    """Return whether the file ``members`` lists the host. Also return true if the directory of secrets does not
    exist.
    """
    return wanted.host in _members(wanted) or not os.path.isdir(wanted.directory)


def remember(wanted: Wanted) -> None:
    """Add the host to the file ``members``, the list of deployed hosts. Raises ``SecretsError``."""
    if remembered(wanted):
        return
    with locked(wanted.directory):
        write(os.path.join(wanted.directory, "members"), "\n".join([*_members(wanted), wanted.host, ""]).encode())


def _members(wanted: Wanted) -> list[str]:
    try:
        with open(os.path.join(wanted.directory, "members"), encoding="utf-8") as stream:
            return stream.read().split("\n")[:-1]
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as exc:
        raise SecretsError("%s/members: %s" % (wanted.directory, exc)) from None


def unfit(path: str, read: Reader) -> list[str]:
    """Return why the file at ``path`` cannot be used as a secret, one sentence each; no sentence if it can."""
    return (
        ["%s on the controller: expected a secret, found no file" % path]
        if not os.path.exists(path)
        else (_rights(path) or _line(path, read))
    )


def _rights(path: str) -> list[str]:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if not mode & 0o077:
        return []
    try:
        with open(path, "rb") as stream:
            if stream.read(len(VAULTED)) == VAULTED:
                return []
    except OSError as exc:
        return ["%s on the controller: %s" % (path, exc.strerror)]
    told = "%s on the controller: expected mode 0600 (nothing for group and others), got %04o: chmod 0600 %s"
    return [told % (path, mode, path)]


def _line(path: str, read: Reader) -> list[str]:
    try:
        text = read(path).decode("utf-8").strip()
    except Exception as exc:  # includes Ansible's own errors
        return ["%s on the controller: %s" % (path, exc)]
    if len(text) >= LEAST and "\n" not in text:
        return []
    return ["%s on the controller: expected one line of at least %d characters" % (path, LEAST)]


@contextlib.contextmanager
def locked(directory: str) -> t.Iterator[None]:
    """Lock the directory of secrets, because Ansible prepares several hosts in parallel. Creates the directory.

    Raises ``SecretsError`` for each ``OSError`` of the block, such as a full disk.
    """
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        with open(os.open(os.path.join(directory, ".lock"), os.O_RDWR | os.O_CREAT, 0o600), "rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            ignored = os.path.join(directory, ".gitignore")
            if not os.path.exists(ignored):
                write(ignored, b"*\n")
            yield
    except OSError as exc:
        raise SecretsError(
            "%s on the controller: %s: expected a directory to write the fleet's secrets to; "
            "xdp_gossip_agent_secret_dir sets another" % (exc.filename or directory, exc.strerror)
        ) from None


def write(path: str, content: bytes) -> None:
    """Write the file atomically. Only the owner of the file can read the file."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    new = "%s.%d.new" % (path, os.getpid())
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(new, path)
