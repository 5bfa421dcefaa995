# SPDX-License-Identifier: MIT
"""Signatures of OpenSSH: verifies them, and lets ``ssh-keygen`` make them."""
