# SPDX-License-Identifier: MIT
"""The user-space side of the kernel data plane: the privileged loader and the agent's access to the maps."""
