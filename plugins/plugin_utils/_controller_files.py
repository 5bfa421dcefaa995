# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PRIVATE to this collection: actions that read and write files on the controller, some of them of ansible-vault."""

from __future__ import annotations

import os
import typing as t

from ansible.plugins.action import ActionBase


class ControllerAction(ActionBase):
    """Base of actions that run in Ansible's own process on the controller, without a connection to any host."""

    _supports_check_mode = True
    _requires_connection = False

    def read(self, path: str) -> bytes:
        """Return the content of a file on the controller, decrypted if ansible-vault has encrypted it."""
        return decrypted(self._loader, path)

    def encrypt(self, content: bytes) -> bytes:
        """Return the content, encrypted by ansible-vault with the first password of this run."""
        return bytes(self._loader._vault.encrypt(content))


def decrypted(loader: t.Any, path: str) -> bytes:
    """Return the content of a file on the controller, decrypted by ``loader`` if ansible-vault has encrypted it."""
    real = loader.get_real_file(path)
    try:
        with open(real, "rb") as stream:
            return stream.read()
    finally:
        loader.cleanup_tmp_file(real)


def absolute(path: str | None) -> str:
    """Return the absolute path without links; "" if there is no path."""
    return os.path.realpath(os.path.expanduser(path)) if path else ""
