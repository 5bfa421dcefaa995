# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signs texts with an OpenSSH key of the controller. ssh-keygen makes the signatures."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import subprocess
import tempfile

#: Namespace of the signatures of documents. A signature that the same key made for another purpose has another one.
NAMESPACE = "xdp-gossip"
PROGRAM = "ssh-keygen"
#: Seconds that one signature may take. The owner of a hardware key has to touch it within this time.
SECONDS = 60.0
#: Maximum bytes of the file of a key.
MAX_KEY = 64 * 1024
#: Types of keys whose signatures members verify.
KEY_TYPES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
)

_PRIVATE_HEAD, _PRIVATE_END = "-----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"
_PRIVATE_MAGIC = b"openssh-key-v1\0"
_ARMOR_HEAD, _ARMOR_END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
#: Variables that would make ssh-keygen ask in a window for a passphrase, or use another key than that of the file.
_ASKING = ("SSH_ASKPASS", "SSH_ASKPASS_REQUIRE", "DISPLAY", "WAYLAND_DISPLAY", "SSH_AUTH_SOCK")


class SigningError(Exception):
    """Raised if a key cannot sign. The message names the remedy, and contains no part of a private key."""


class SigningKey:
    """A key on the controller that signs documents.

    ``path``: the file of the private key, or of the public key if ``agent`` is true and ssh-agent has the private key.
    ``named``: the value of the option ``sign_key``, for messages. The constructor reads only the public key.
    Raises :class:`SigningError`.
    """

    def __init__(self, path: str, named: str, agent: bool = False) -> None:
        self._path = path
        self._named = named
        self._agent = agent
        try:
            with open(path, "rb") as stream:
                text = stream.read(MAX_KEY).decode("utf-8", "replace")
        except OSError as exc:
            raise SigningError("sign_key %s: %s" % (named, exc.strerror or exc)) from None
        self.public = self._read_public(text) if agent else self._read_private(text)
        kind = _kind(self.public)
        if kind not in KEY_TYPES:
            raise SigningError(
                "sign_key %s: expected a key of type %s, got %s: create another one with ssh-keygen -t ed25519"
                % (named, ", ".join(KEY_TYPES), kind or "another content")
            )
        self._line = "%s %s" % (kind, base64.b64encode(self.public).decode("ascii"))

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the public key, as OpenSSH and members show it."""
        digest = hashlib.sha256(self.public).digest()
        return "SHA256:" + base64.b64encode(digest).rstrip(b"=").decode("ascii")

    def _read_private(self, text: str) -> bytes:
        """Return the public key in the file of a private key, which contains it in clear text."""
        if text.split()[:1] and text.split()[0] in KEY_TYPES:
            raise SigningError(
                "sign_key %s: expected a private key, got a public key: name the file without .pub, or set "
                "sign_with: agent if ssh-agent has the private key" % self._named
            )
        try:
            fields = _Fields(_decoded(text, _PRIVATE_HEAD, _PRIVATE_END))
            if fields.raw(len(_PRIVATE_MAGIC)) != _PRIVATE_MAGIC:
                raise ValueError
            cipher = fields.string()
            fields.string()
            fields.string()
            count, public = fields.number(), fields.string()
            if count != 1:
                raise ValueError
        except ValueError:
            raise SigningError(
                "sign_key %s: expected a private key in OpenSSH's own format, got another content: create a key with "
                "ssh-keygen -t ed25519, or convert this one with ssh-keygen -p -f FILE" % self._named
            ) from None
        if cipher != b"none":
            raise SigningError(
                "sign_key %s: expected a key without a passphrase, got one with a passphrase: add the key to ssh-agent "
                "and set sign_with: agent, or encrypt a key without a passphrase with ansible-vault" % self._named
            )
        return public

    def _read_public(self, text: str) -> bytes:
        words = text.split()
        if "PRIVATE KEY" in text or len(words) < 2:
            raise SigningError(
                "sign_key %s: expected a public key with sign_with: agent, such as a file *.pub, got %s"
                % (self._named, "a private key" if "PRIVATE KEY" in text else "another content")
            )
        try:
            return base64.b64decode(words[1], validate=True)
        except (binascii.Error, ValueError):
            raise SigningError(
                "sign_key %s: expected a public key such as 'ssh-ed25519 AAAA...', got another content" % self._named
            ) from None

    def sign(self, text: bytes) -> str:
        """Return the armored signature of ``text``. Raises :class:`SigningError`."""
        if not self._agent:
            return self._checked(self._run(self._path, text))
        # In a directory of its own, because ssh-keygen would use a private key that is beside the public key.
        with tempfile.TemporaryDirectory(prefix="xdp-gossip-signer-") as directory:
            path = os.path.join(directory, "signer.pub")
            with open(path, "w", encoding="ascii") as stream:
                stream.write(self._line + "\n")
            return self._checked(self._run(path, text))

    def _checked(self, armored: str) -> str:
        """Return ``armored`` if it is a signature by this key. Raises :class:`SigningError`."""
        try:
            fields = _Fields(_decoded(armored, _ARMOR_HEAD, _ARMOR_END))
            if fields.raw(6) != b"SSHSIG" or fields.number() != 1 or fields.string() != self.public:
                raise ValueError
        except ValueError:
            raise SigningError("sign_key %s: ssh-keygen made no signature by this key" % self._named) from None
        return armored

    def _run(self, path: str, text: bytes) -> str:
        environment = {name: value for name, value in os.environ.items() if name not in _ASKING}
        environment.update(LC_ALL="C", SSH_ASKPASS_REQUIRE="never")
        if self._agent:
            if not os.environ.get("SSH_AUTH_SOCK"):
                raise SigningError(
                    "sign_key %s: expected ssh-agent on the controller with sign_with: agent, found none: "
                    "SSH_AUTH_SOCK is not set" % self._named
                )
            environment["SSH_AUTH_SOCK"] = os.environ["SSH_AUTH_SOCK"]
        try:
            done = subprocess.run(
                [PROGRAM, "-Y", "sign", "-q", "-n", NAMESPACE, "-f", path],
                input=text,
                capture_output=True,
                timeout=SECONDS,
                check=False,
                env=environment,
                # Without a terminal, ssh-keygen fails where it would ask for a passphrase.
                start_new_session=True,
            )
        except FileNotFoundError:
            raise SigningError(
                "sign_key %s: expected OpenSSH's ssh-keygen on the controller, found none: install openssh-client "
                "(Debian, Ubuntu) or openssh (Red Hat)" % self._named
            ) from None
        except subprocess.TimeoutExpired:
            raise SigningError(
                "sign_key %s: expected a signature within %g seconds, got none: touch the hardware key when it blinks, "
                "or sign by hand with %s -Y sign to see what it waits for" % (self._named, SECONDS, PROGRAM)
            ) from None
        except OSError as exc:
            raise SigningError("sign_key %s: cannot run %s: %s" % (self._named, PROGRAM, exc)) from None
        if done.returncode:
            said = "; ".join(done.stderr.decode("utf-8", "replace").strip().splitlines()) or "it gives no reason"
            remedy = " (is the key in ssh-agent? ssh-add -l lists its keys)" if self._agent else ""
            raise SigningError("sign_key %s: ssh-keygen made no signature%s: %s" % (self._named, remedy, said))
        return done.stdout.decode("ascii", "replace")


class _Fields:
    """Reads the fields of a binary structure of OpenSSH. Raises ``ValueError`` at its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def raw(self, length: int) -> bytes:
        """Return the next ``length`` bytes."""
        found = self._data[self._at : self._at + length]
        if len(found) < length:
            raise ValueError
        self._at += length
        return found

    def number(self) -> int:
        """Return the next 32-bit number."""
        return int.from_bytes(self.raw(4), "big")

    def string(self) -> bytes:
        """Return the next bytes with a length before them."""
        return self.raw(self.number())


def _kind(public: bytes) -> str:
    """Return the type of a public key; "" if there is none."""
    try:
        kind = _Fields(public).string().decode("ascii")
    except (UnicodeDecodeError, ValueError):
        return ""
    return kind if kind.isprintable() and len(kind) <= 64 else ""


def _decoded(text: str, head: str, end: str) -> bytes:
    """Return the bytes between two lines of armor. Raises ``ValueError``."""
    lines = text.strip().splitlines()
    if len(lines) < 3 or lines[0].strip() != head or lines[-1].strip() != end:
        raise ValueError
    return base64.b64decode("".join(line.strip() for line in lines[1:-1]), validate=True)
