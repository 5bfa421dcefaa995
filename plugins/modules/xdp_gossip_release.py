# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_release
short_description: Find the release of the agent to deploy
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - This module is part of the role P(xdp_gossip.fleet.agent#role).
  - An installed collection contains a release of the agent, and the module returns this release. In a checkout of the
    repository, the module builds a new release in C(~/.cache/xdp-gossip) on the controller, so that the role does not
    deploy an old release.
extends_documentation_fragment:
  - xdp_gossip.fleet.attributes.read_only
  - xdp_gossip.fleet.attributes
  - xdp_gossip.fleet.attributes.on_controller
attributes:
  check_mode:
    details: Changes nothing on any host in either mode.
options:
  archive:
    description:
      - A release archive C(xdp-gossip-VERSION.tar.gz) on the controller. If no archive is given, the module uses the
        release of the collection.
    type: str
    default: ""
  checksum:
    description:
      - The SHA-256 that the archive must have, as V(sha256:HEX). If the archive has another SHA-256, the module fails
        before anything of the archive is read.
    type: str
    default: ""
  signature:
    description:
      - Path of a file on the controller with the OpenSSH signature of the archive, in the namespace
        C(xdp-gossip-release). If the signature does not verify, the module fails before anything of the archive is
        read.
      - The module verifies the signature with C(ssh-keygen) on the controller.
    type: str
    default: ""
  signers:
    description:
      - The keys that may sign the archive, as the path of an C(allowed_signers) file on the controller, or as the
        content of such a file, with one line for each key. The manual page of C(ssh-keygen) describes this file.
      - O(signature) and O(signers) are required together.
    type: str
    default: ""
  container:
    description:
      - Path of a program container on the controller, which C(xdp-gossip dataplane build) has built from the same
        release. The module returns a copy of the archive that contains the program container. Hosts without a compiler
        load the kernel data plane from it.
      - The module fails if the program container was changed, or was built from another release.
    type: str
    default: ""
  container_checksum:
    description: The SHA-256 that the program container must have, as V(sha256:HEX).
    type: str
    default: ""
seealso:
  - module: xdp_gossip.fleet.xdp_gossip_preflight
"""

EXAMPLES = r"""
- name: Find the release
  xdp_gossip.fleet.xdp_gossip_release:
  register: release
"""

RETURN = r"""
path:
  description: Path of the archive on the controller.
  type: str
  returned: success
version:
  description: Version of the agent in the archive.
  type: str
  returned: success
release:
  description: Name of the release, consisting of the version, a dash, and the first twelve hexadecimal digits of the
    archive's SHA-256.
  type: str
  returned: success
wire:
  description: Version of the wire format that the agent in the archive uses, or V(unknown).
  type: str
  returned: success
container:
  description: SHA-256 of the program container in the archive, or an empty string if the archive contains none.
  type: str
  returned: success
signer:
  description: Principal in O(signers) whose key signed the archive, or an empty string without O(signature).
  type: str
  returned: success
"""
