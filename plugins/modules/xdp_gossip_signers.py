#!/usr/bin/python
# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_signers
short_description: Find documents that signers of documents have not signed
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Asks the agent of this host over its Unix socket for the documents under the prefixes of O(signers), and returns
    those that a member with O(signers) in its configuration would no longer return. Changes nothing.
  - This module is part of the role P(xdp_gossip.fleet.agent#role), which sets all options.
extends_documentation_fragment:
  - xdp_gossip.fleet.attributes.read_only
  - xdp_gossip.fleet.attributes
attributes:
  idempotent:
    support: N/A
    details: Changes nothing.
options:
  socket:
    description: Unix socket of the agent.
    type: path
    default: /run/xdp-gossip/api.sock
  signers:
    description: The signers, as in O(xdp_gossip.fleet.agent#role:main:xdp_gossip_agent_signers).
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the signer.
        type: str
        required: true
      public_key:
        description: The public key, as in a file C(*.pub) of OpenSSH.
        type: str
        required: true
      prefixes:
        description: Prefixes of the names of the documents that the signer may sign.
        type: list
        elements: str
        required: true
      valid_before:
        description: Time such as C(2027-01-31T12:00:00Z). Signatures of this time or later are refused.
        type: str
"""

EXAMPLES = r"""
- name: Which documents below app/ would be lost?
  xdp_gossip.fleet.xdp_gossip_signers:
    signers:
      - name: release
        public_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINFhUdhtpM/hKqa3kwmtwXb8OWpj5BRj3koQmeTUrFNq
        prefixes: [app/]
"""

RETURN = r"""
answered:
  description: Whether the agent answered. If not, RV(unsigned) is empty.
  returned: always
  type: bool
  sample: true
unsigned:
  description: One text for each document that the signers have not signed, with the name of the document.
  returned: always
  type: list
  elements: str
  sample: ["app/limits (no signature, expected one by release)"]
"""

import base64
import binascii
import calendar
import hashlib
import re
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._gate import Unanswered, ask
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip


class Signer(t.NamedTuple):
    """A signer. ``until``: seconds since the epoch from which signatures are refused; ``None``: the signer is valid."""

    name: str
    fingerprint: str
    until: t.Optional[float]


def fingerprint(line: str) -> str:
    """Return the fingerprint of a public key as OpenSSH shows it. Raises ``ValueError``."""
    words = line.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, binascii.Error, ValueError):
        raise ValueError("public_key: expected a line such as 'ssh-ed25519 AAAA...', got another text") from None
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).rstrip(b"=").decode("ascii")


def by_prefix(signers: list[dict[str, t.Any]]) -> dict[str, list[Signer]]:
    """Return the signers of each prefix. Raises ``ValueError``."""
    found: dict[str, list[Signer]] = {}
    for given in signers:
        until = given["valid_before"]
        seconds = None if until is None else float(calendar.timegm(time.strptime(until, "%Y-%m-%dT%H:%M:%SZ")))
        signer = Signer(given["name"], fingerprint(given["public_key"]), seconds)
        for prefix in given["prefixes"]:
            found.setdefault(prefix, []).append(signer)
    return found


def signed_at(version: t.Any) -> float:
    """Return the time of a signature, in seconds since the epoch, from the version of the document."""
    match = re.match(r"([0-9a-f]{16})@", version) if isinstance(version, str) else None
    reading = int(match.group(1), 16) if match else 0
    return (reading >> 16) / 1000 + (reading & 0xFFFF) // 64 / 1e6


def unsigned(documents: t.Any, signers: dict[str, list[Signer]]) -> list[str]:
    """Return one text for each document that needs another signature. Raises ``ValueError``."""
    if not isinstance(documents, list) or not all(isinstance(one, dict) for one in documents):
        raise ValueError("documents: expected a list of objects")
    told = []
    for document in documents:
        key = str(document.get("key"))
        prefix = max((one for one in signers if key.startswith(one)), key=len, default=None)
        if prefix is None:
            continue
        by = document.get("signed_by")
        used = by.get("key") if isinstance(by, dict) else None
        signer = next((one for one in signers[prefix] if one.fingerprint == used), None)
        names = " or ".join(one.name for one in signers[prefix])
        if signer is None:
            by = "a signature by %s" % clip(str(used)) if used else "no signature"
            told.append("%s (%s, expected one by %s)" % (clip(key), by, names))
        elif signer.until is not None and signed_at(document.get("version")) >= signer.until:
            told.append("%s (signed by %s after valid_before)" % (clip(key), signer.name))
    return told


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "default": "/run/xdp-gossip/api.sock"},
            "signers": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "public_key": {"type": "str", "required": True, "no_log": False},
                    "prefixes": {"type": "list", "elements": "str", "required": True},
                    "valid_before": {"type": "str"},
                },
            },
        },
        supports_check_mode=True,
    )
    try:
        signers = by_prefix(module.params["signers"])
    except ValueError as exc:
        module.fail_json(msg="signers: %s" % exc)
    try:
        found = unsigned(ask(module.params["socket"], "/v1/documents").get("documents"), signers)
    except (Unanswered, ValueError):
        module.exit_json(changed=False, answered=False, unsigned=[])
    module.exit_json(changed=False, answered=True, unsigned=found)


if __name__ == "__main__":
    main()
