# SPDX-License-Identifier: MIT
"""Names of the HTTP headers that both the agent and its clients use."""

#: Request header: seconds that the client waits for the answer, counted from the arrival of the request.
TIMEOUT_HEADER = "X-XDP-Gossip-Timeout"

#: Response header that identifies the agent and the version of its API, because another program may listen at an
#: endpoint.
API_HEADER = "X-XDP-Gossip-Api"
API_VERSION = "1"

#: Request header: an id that the client chooses, with which it can query the request's outcome later.
ID_HEADER = "X-XDP-Gossip-Request-Id"

#: Request header of a write whose client will wait for confirmations. With the value ``isolated``, an isolated member
#: refuses the write before anything is written. An older agent ignores the header.
UNLESS_HEADER = "X-XDP-Gossip-Unless"
UNLESS_ISOLATED = "isolated"
