# SPDX-License-Identifier: MIT
"""Names of the headers that agent and clients agree on."""

#: Seconds that the client waits for its answer, counted from when its request has arrived.
TIMEOUT_HEADER = "X-XDP-Gossip-Timeout"

#: A name that the client made up for the request, by which it can ask later what came of it.
ID_HEADER = "X-XDP-Gossip-Request-Id"
