# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._containers import (
    ContainerError,
    carried,
    with_container,
)
from ansible_collections.xdp_gossip.fleet.plugins.plugin_utils._signatures import SignatureError, verify

#: Root directory of this collection, and a file that exists only in an installed collection.
COLLECTION = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
INSTALLED = os.path.join(COLLECTION, "MANIFEST.json")
CARRIED = os.path.join(COLLECTION, "roles", "agent", "files")
BUILDER = os.path.join(COLLECTION, "agent", "build_release.py")
BUILT = "~/.cache/xdp-gossip"

_NAME = re.compile(r"xdp-gossip-([0-9][^/]*)\.tar\.gz\Z")
_CHECKSUM = re.compile(r"sha256:([0-9a-fA-F]{64})\Z")


class ActionModule(ActionBase):
    """Action that runs in Ansible's own process on the controller, without a connection to any host."""

    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Find or build the release archive, and return its path, versions and name. Raises ``AnsibleActionFail``."""
        super().run(tmp, task_vars)
        names = ("archive", "checksum", "signature", "signers", "container", "container_checksum")
        options = self.validate_argument_spec(argument_spec={name: {"type": "str", "default": ""} for name in names})[1]
        wanted = _checksum(options, "checksum", "xdp_gossip_agent_release_checksum")
        wanted_container = _checksum(options, "container_checksum", "xdp_gossip_agent_dataplane_container_checksum")
        for given, missing in (("signature", "signers"), ("signers", "signature")):
            if options[given] and not options[missing]:
                raise AnsibleActionFail(
                    "%s: expected a value, because %s is set and an archive is verified with both, got none: set "
                    "xdp_gossip_agent_release_%s" % (missing, given, missing)
                )
        path = os.path.realpath(os.path.expanduser(options["archive"])) if options["archive"] else _own()
        named = _NAME.match(os.path.basename(path))
        if not named or not os.path.isfile(path):
            raise AnsibleActionFail(
                "%s: expected a release archive xdp-gossip-VERSION.tar.gz, found none: "
                "set xdp_gossip_agent_release_archive" % path
            )
        signer = ""
        try:
            # Read once, so that the content that is read is the content that was checked.
            with open(path, "rb") as stream:
                content = stream.read()
            digest = hashlib.sha256(content).hexdigest()
            if wanted and digest != wanted:
                raise AnsibleActionFail(
                    "%s: expected an archive with the checksum sha256:%s, got sha256:%s: it is another release, or was "
                    "changed" % (path, wanted, digest)
                )
            if options["signature"]:
                signature = os.path.realpath(os.path.expanduser(options["signature"]))
                signer = verify(path, content, signature, options["signers"])
            if options["container"]:
                path, content = _embedded(path, content, options["container"])
                digest = hashlib.sha256(content).hexdigest()
            with tarfile.open(fileobj=io.BytesIO(content)) as archive:
                wire, container = _wire(archive), carried(archive)
        except SignatureError as exc:
            raise AnsibleActionFail(str(exc)) from None
        except (OSError, tarfile.TarError, UnicodeError) as exc:
            raise AnsibleActionFail("%s: expected a release archive: %s" % (path, exc)) from None
        found_container = hashlib.sha256(container).hexdigest() if container else ""
        if wanted_container and found_container != wanted_container:
            raise AnsibleActionFail(
                "%s: expected a program container with the checksum sha256:%s, got %s"
                % (options["container"] or path, wanted_container, found_container or "none")
            )
        version = named.group(1)
        release = "%s-%s" % (version, digest[:12])
        found = {"path": path, "version": version, "release": release, "wire": wire, "signer": signer}
        return {"changed": False, "container": found_container, **found}


def _checksum(options: dict[str, t.Any], name: str, variable: str) -> str:
    """Return the hexadecimal digits of a checksum option; "" without the option. Raises ``AnsibleActionFail``."""
    found = _CHECKSUM.match(options[name])
    if options[name] and not found:
        raise AnsibleActionFail(
            "%s: expected sha256: and 64 hexadecimal digits, got %s: set %s" % (name, options[name], variable)
        )
    return found.group(1).lower() if found else ""


def _embedded(path: str, content: bytes, container: str) -> tuple[str, bytes]:
    """Put a program container into the archive ``content``, in a copy below ``BUILT``.

    Returns the path and the content of the copy. Raises ``AnsibleActionFail``.
    """
    given = os.path.realpath(os.path.expanduser(container))
    directory = os.path.join(os.path.expanduser(BUILT), "with-container")
    copy = os.path.join(directory, os.path.basename(path))
    partial = "%s.%d" % (copy, os.getpid())
    try:
        with open(given, "rb") as stream:
            whole = with_container(content, stream.read())
        os.makedirs(directory, exist_ok=True)
        with open(partial, "wb") as stream:
            stream.write(whole)
        os.replace(partial, copy)
    except (ContainerError, OSError) as exc:
        raise AnsibleActionFail(
            "%s: %s: set xdp_gossip_agent_dataplane_container" % (given, getattr(exc, "strerror", "") or exc)
        ) from None
    return copy, whole


def _own() -> str:
    """Return the path of the installed collection's release; in a checkout, build a new release and return its path."""
    if os.path.exists(INSTALLED):
        return max(glob.glob(os.path.join(CARRIED, "xdp-gossip-*.tar.gz")), default=CARRIED)
    command = [sys.executable, "-I", BUILDER, "--output", os.path.expanduser(BUILT)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
        return t.cast(str, json.loads(done.stdout)["path"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as exc:
        said = getattr(exc, "stderr", None) or exc
        raise AnsibleActionFail("%s: cannot build the release of this checkout: %s" % (BUILDER, said)) from None


def _wire(archive: tarfile.TarFile) -> str:
    """Return the wire version from the file WIRE of the release; "unknown" for an old release without this file."""
    try:
        member = archive.extractfile("WIRE")
    except KeyError:
        return "unknown"
    return member.read(64).decode("ascii").strip() if member else "unknown"
