# SPDX-License-Identifier: MIT
"""Names of the HTTP headers that agent and clients share."""

#: Seconds that the client waits for its answer, counted from when its request has arrived.
TIMEOUT_HEADER = "X-XDP-Gossip-Timeout"

#: Says on every answer that it is an agent's, and the version of its API: something else may listen at an endpoint.
API_HEADER = "X-XDP-Gossip-Api"
API_VERSION = "1"

#: A name that the client made up for the request, by which it can ask later what came of it.
ID_HEADER = "X-XDP-Gossip-Request-Id"
