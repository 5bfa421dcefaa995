# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the connection options. ``PLUGINS`` adds env, ini and vars as further sources of these options.
Plugins use ``PLUGINS``; modules do not.

``OPTIONS`` in ``module_utils/_settings.py`` declares the same options as an argument specification. A test compares
both.
"""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  endpoints:
    description:
      - Endpoints of members of the fleet. They are tried in this order, and the first that answers is used.
      - V(unix:///path) is an agent's Unix socket. V(http://host:port) and V(https://host:port) are its TCP port. The
        default port is 8001.
      - If another service than an agent answers, the endpoint counts as failed, and the next endpoint is tried.
      - The client ignores proxies, redirects and C(.netrc) files, and never sends the token over a Unix socket.
    type: list
    elements: str
    default: ["unix:///run/xdp-gossip/api.sock"]
  token:
    description:
      - The agents' API token, required over TCP and not used on a Unix socket.
      - Over V(http://), the token crosses the network in clear text.
    type: str
  token_file:
    description:
      - File that contains the token on one line. The file is read on the machine on which the plugin runs. For modules,
        this is the target host.
      - A relative path in O(token_file), O(ca_path), O(client_cert) or O(client_key) starts at the directory of the
        inventory file that sets the option. Outside of inventory files, the path starts at the current directory, which
        for a module is usually the user's home.
      - Mutually exclusive with O(token). If a task sets one of the two options, the module ignores the environment
        variable of the other.
    type: path
  ca_path:
    description:
      - File or directory with the certificates (PEM) of the authorities that may sign the agents' certificates.
      - By default, the system's authorities are trusted.
    type: path
  client_cert:
    description: Client certificate (PEM). The file may also contain the private key.
    type: path
  client_key:
    description: Private key (PEM) of O(client_cert).
    type: path
  validate_certs:
    description: Whether the certificate of an V(https://) endpoint must be valid and contain the endpoint's host name.
    type: bool
    default: true
  timeout:
    description:
      - Seconds within which one endpoint must have answered completely, including the connection.
      - If a request waits on purpose, as for convergence, that waiting time is added to O(timeout).
    type: float
    default: 10
  retries:
    description:
      - Number of times to try the whole list of O(endpoints) again if no endpoint answered. The pause before each retry
        doubles from 0.3 up to 5 seconds.
      - Before each retry, a warning says which endpoints failed, why, and how many retries are left. An endpoint that
        refuses the token is not tried again.
    type: int
    default: 1
notes:
  - An option that is not given is read from an environment variable on the machine on which the module or plugin runs.
    For a module, this is the target host.
  - The environment variables are E(XDP_GOSSIP_ENDPOINTS) with endpoints separated by commas, E(XDP_GOSSIP_TOKEN),
    E(XDP_GOSSIP_TOKEN_FILE), E(XDP_GOSSIP_CA_PATH), E(XDP_GOSSIP_CLIENT_CERT), E(XDP_GOSSIP_CLIENT_KEY),
    E(XDP_GOSSIP_VALIDATE_CERTS), E(XDP_GOSSIP_TIMEOUT) and E(XDP_GOSSIP_RETRIES).
"""

    PLUGINS = r"""
options:
  endpoints:
    env:
      - name: XDP_GOSSIP_ENDPOINTS
    ini:
      - section: xdp_gossip
        key: endpoints
    vars:
      - name: xdp_gossip_endpoints
  token:
    env:
      - name: XDP_GOSSIP_TOKEN
    ini:
      - section: xdp_gossip
        key: token
    vars:
      - name: xdp_gossip_token
  token_file:
    env:
      - name: XDP_GOSSIP_TOKEN_FILE
    ini:
      - section: xdp_gossip
        key: token_file
    vars:
      - name: xdp_gossip_token_file
  ca_path:
    env:
      - name: XDP_GOSSIP_CA_PATH
    ini:
      - section: xdp_gossip
        key: ca_path
    vars:
      - name: xdp_gossip_ca_path
  client_cert:
    env:
      - name: XDP_GOSSIP_CLIENT_CERT
    ini:
      - section: xdp_gossip
        key: client_cert
    vars:
      - name: xdp_gossip_client_cert
  client_key:
    env:
      - name: XDP_GOSSIP_CLIENT_KEY
    ini:
      - section: xdp_gossip
        key: client_key
    vars:
      - name: xdp_gossip_client_key
  validate_certs:
    env:
      - name: XDP_GOSSIP_VALIDATE_CERTS
    ini:
      - section: xdp_gossip
        key: validate_certs
    vars:
      - name: xdp_gossip_validate_certs
  timeout:
    env:
      - name: XDP_GOSSIP_TIMEOUT
    ini:
      - section: xdp_gossip
        key: timeout
    vars:
      - name: xdp_gossip_timeout
  retries:
    env:
      - name: XDP_GOSSIP_RETRIES
    ini:
      - section: xdp_gossip
        key: retries
    vars:
      - name: xdp_gossip_retries
"""
