# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Signatures of releases: OpenSSH signatures, which ssh-keygen verifies on the controller."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile

#: Namespace of the signatures. A signature that the same key made for another purpose has another namespace.
NAMESPACE = "xdp-gossip-release"
PROGRAM = "ssh-keygen"
#: Seconds that one call of ssh-keygen may take.
SECONDS = 30.0
#: Principals of one key that are tried at most.
PRINCIPALS = 16

#: A line of an allowed_signers file: principals, perhaps options, the type of the key, and the key in base64.
_SIGNER = re.compile(r"\s(?:ssh|ecdsa|sk)-\S+\s+AAAA", re.ASCII)


class SignatureError(Exception):
    """Raised if a signature does not prove where a release comes from. The message names the remedy."""


def verify(archive: str, content: bytes, signature: str, signers: str) -> str:
    """Verify the signature in the file ``signature`` over ``content``, the content of ``archive``.

    ``signers`` is the path of an allowed_signers file or its content. Returns the principal that signed the archive.
    Raises :class:`SignatureError`.
    """
    if not os.path.isfile(signature):
        raise SignatureError(
            "%s: expected the signature of %s, found none: download it from the release, or correct "
            "xdp_gossip_agent_release_signature" % (signature, archive)
        )
    with tempfile.TemporaryDirectory(prefix="xdp-gossip-signers-") as directory:
        if _SIGNER.search(signers):
            named, path = "xdp_gossip_agent_release_signers", os.path.join(directory, "allowed_signers")
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(signers.rstrip("\n") + "\n")
        else:
            named = path = os.path.realpath(os.path.expanduser(signers))
            if not os.path.isfile(path):
                raise SignatureError(
                    "%s: expected an allowed_signers file, or its content with lines such as 'NAME ssh-ed25519 KEY', "
                    "got neither: correct xdp_gossip_agent_release_signers" % path
                )
        return _verify(archive, content, signature, path, named)


def _verify(archive: str, content: bytes, signature: str, signers: str, named: str) -> str:
    status, output, said = _run(["find-principals", "-s", signature, "-f", signers], b"", archive)
    principals = output.splitlines()
    if status or not principals:
        if "parse signature" in said or "sshsig_armor" in said or "invalid format" in said:
            raise SignatureError(
                "%s: expected an OpenSSH signature of %s, got another content (%s): download it again, or correct "
                "xdp_gossip_agent_release_signature" % (signature, archive, said)
            )
        raise SignatureError(
            "%s: expected a signature by one of the keys in %s, got none by a valid key (%s): do not use %s until its "
            "signer is known, then add the key to xdp_gossip_agent_release_signers" % (signature, named, said, archive)
        )
    for principal in principals[:PRINCIPALS]:
        words = ["verify", "-f", signers, "-I", principal, "-n", NAMESPACE, "-s", signature]
        status, output, said = _run(words, content, archive)
        if status == 0:
            return principal
    if "namespace does not match" in said:
        raise SignatureError(
            "%s: expected a signature in the namespace %s, got one in another namespace, so it was not made for a "
            "release: the signer has to sign %s with ssh-keygen -Y sign -n %s"
            % (signature, NAMESPACE, archive, NAMESPACE)
        )
    if "not permitted" in said:
        raise SignatureError(
            "%s: expected a key that may sign in the namespace %s, got one with other namespaces (%s): correct "
            "xdp_gossip_agent_release_signers" % (named, NAMESPACE, said)
        )
    if "incorrect signature" in said:
        raise SignatureError(
            "%s: expected the archive that %s signed in %s, got another content: the archive was changed, or the "
            "signature belongs to another release; download both again" % (archive, principals[0], signature)
        )
    raise SignatureError(
        "%s: expected a signature of %s by a signer in %s, got none that ssh-keygen verifies: %s"
        % (signature, archive, named, said)
    )


def _run(words: list[str], content: bytes, archive: str) -> tuple[int, str, str]:
    """Run ``ssh-keygen -Y``; returns the exit status, the output, and the messages as one line."""
    try:
        done = subprocess.run(
            [PROGRAM, "-Y"] + words,
            input=content,
            capture_output=True,
            timeout=SECONDS,
            check=False,
            env=dict(os.environ, LC_ALL="C"),
        )
    except FileNotFoundError:
        raise SignatureError(
            "%s: expected OpenSSH's ssh-keygen on the controller to verify the signature of %s, found none: install "
            "openssh-client (Debian, Ubuntu) or openssh (Red Hat)" % (PROGRAM, archive)
        ) from None
    except subprocess.TimeoutExpired:
        raise SignatureError(
            "%s: expected an answer about the signature of %s within %g seconds, got none: run %s -Y %s by hand"
            % (PROGRAM, archive, SECONDS, PROGRAM, words[0])
        ) from None
    except OSError as exc:
        raise SignatureError("%s: cannot verify the signature of %s: %s" % (PROGRAM, archive, exc)) from None
    said = done.stderr.decode("utf-8", "replace").strip() or "ssh-keygen gives no reason"
    return done.returncode, done.stdout.decode("utf-8", "replace"), "; ".join(said.splitlines())
