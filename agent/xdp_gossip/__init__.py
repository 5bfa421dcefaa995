# SPDX-License-Identifier: MIT
"""XDP Gossip: a cluster's node list and configuration documents, kept by gossip."""

__version__ = "0.1.0"
