# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the connection options: plain for modules, ``PLUGINS`` adds env, ini and vars.

``OPTIONS`` in ``module_utils/_settings.py`` is the same for Python; a test holds them equal.
"""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  endpoints:
    description:
      - Endpoints of members of the fleet, tried in this order; the first that answers is used.
      - V(unix:///path) is an agent's Unix socket, V(http://host:port) and V(https://host:port) its TCP port.
        Without a port, 8001 is used.
      - An answer from another service counts as no answer, and the next endpoint is tried.
      - Proxies, redirects and C(.netrc) files are not used, and the token is never sent over a Unix socket.
    type: list
    elements: str
    default: ["unix:///run/xdp-gossip/api.sock"]
  token:
    description:
      - The agents' API token. Needed over TCP, not used on a Unix socket.
      - Over V(http://) it crosses the network in clear text.
    type: str
  token_file:
    description:
      - File that holds the token on one line. Read where the plugin runs; for modules that is the target host.
      - A relative path, also in O(ca_path), O(client_cert) and O(client_key), is relative to the inventory file that
        sets it, else to the current directory, which for a module is usually the user's home.
      - Mutually exclusive with O(token). If a module is given one of them, it ignores the environment variable of the
        other.
    type: path
  ca_path:
    description:
      - File or directory with the certificates (PEM) of the authorities that may sign the agents' certificates.
      - The default is the system's authorities.
    type: path
  client_cert:
    description: Client certificate (PEM); the file may also contain the key.
    type: path
  client_key:
    description: Private key (PEM) of O(client_cert).
    type: path
  validate_certs:
    description: Whether the certificate of an V(https://) endpoint must be valid and name its host.
    type: bool
    default: true
  timeout:
    description:
      - Seconds for the complete answer of one endpoint, including the connection.
      - Time that a call waits on purpose is added.
    type: float
    default: 10
  retries:
    description:
      - Number of times to try the whole list of O(endpoints) again if none answered, after a pause that doubles from
        0.3 to 5 seconds.
      - Each time a warning says which endpoint failed, why, and how many retries are left. An endpoint that refuses the
        token is not tried again.
    type: int
    default: 1
notes:
  - Options that are not given are read from the environment in which the module or plugin runs (for a module, that of
    the target); E(XDP_GOSSIP_ENDPOINTS) separated by commas, E(XDP_GOSSIP_TOKEN), E(XDP_GOSSIP_TOKEN_FILE),
    E(XDP_GOSSIP_CA_PATH), E(XDP_GOSSIP_CLIENT_CERT), E(XDP_GOSSIP_CLIENT_KEY), E(XDP_GOSSIP_VALIDATE_CERTS),
    E(XDP_GOSSIP_TIMEOUT) and E(XDP_GOSSIP_RETRIES).
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
