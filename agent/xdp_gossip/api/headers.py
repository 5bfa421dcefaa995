# SPDX-License-Identifier: MIT
"""Names of the HTTP headers that agent and clients share."""

#: Seconds that the client waits for its answer, counted from the arrival of its request.
TIMEOUT_HEADER = "X-XDP-Gossip-Timeout"

#: Marks every answer as an agent's, with the version of its API: another program may listen at an endpoint.
API_HEADER = "X-XDP-Gossip-Api"
API_VERSION = "1"

#: An id that the client chose for the request, by which it can ask for the outcome later.
ID_HEADER = "X-XDP-Gossip-Request-Id"
