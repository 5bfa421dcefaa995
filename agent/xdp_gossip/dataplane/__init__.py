# SPDX-License-Identifier: MIT
"""The kernel data plane seen from user space: the loader (privileged, short-lived) and the maps (unprivileged)."""
