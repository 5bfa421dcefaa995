#!/usr/bin/python
# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_verify
short_description: Prove that a fleet holds a configuration document
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Asks one member whether the members of the fleet hold a given version, digest or content of a document, or, without
    O(key), whether all of them hold the same documents.
  - Fails, naming each member that lags behind, when fewer hold it than O(wait) asks for. Changes nothing.
requirements:
  - PyYAML on the target, only for O(value) with O(content_type=yaml)
extends_documentation_fragment:
  - xdp_gossip.fleet.connection
  - xdp_gossip.fleet.attributes
  - xdp_gossip.fleet.attributes.read_only
options:
  key:
    description:
      - Name of the document. Without it, the whole state of the members is compared.
      - Without O(version), O(digest) or a content, the version held by the member that is asked counts.
    type: str
  version:
    description: Version that the members must hold, as RV(xdp_gossip.fleet.xdp_gossip_publish#module:version) gave it.
    type: str
  digest:
    description: SHA-256 of the content that they must hold, with or without C(sha256:) in front.
    type: str
  content:
    description: The content that they must hold, byte for byte (UTF-8).
    type: str
  value:
    description: The content as data, written as O(xdp_gossip.fleet.xdp_gossip_publish#module:value) is.
    type: raw
  src:
    description: File on the target host whose bytes they must hold.
    type: path
  content_type:
    description: How O(value) is written when it is not text, V(json) or V(yaml). It is not compared.
    type: str
    choices: [raw, text, json, yaml]
  wait:
    description: How many members must hold it. V(majority), V(all), or a number of members.
    type: str
    default: all
  wait_timeout:
    description: Seconds to wait for them at most; 0 asks once.
    type: int
    default: 30
seealso:
  - module: xdp_gossip.fleet.xdp_gossip_publish
"""

EXAMPLES = r"""
- name: Every member holds the published file
  xdp_gossip.fleet.xdp_gossip_verify:
    key: haproxy.cfg
    src: /etc/haproxy/haproxy.cfg

- name: Every member holds the version that was just published
  xdp_gossip.fleet.xdp_gossip_verify:
    key: app/limits
    version: "{{ published.version }}"
    wait_timeout: 10

- name: No two members differ in anything, at this moment
  xdp_gossip.fleet.xdp_gossip_verify:
    wait_timeout: 0
"""

RETURN = r"""
converged:
  description: Whether as many members as O(wait) asks for hold it.
  returned: always, unless no member answered
  type: bool
  sample: true
members:
  description: Members that were asked about.
  returned: always, unless no member answered
  type: int
  sample: 3
confirmed:
  description: How many of them hold it.
  returned: always, unless no member answered
  type: int
  sample: 3
elapsed:
  description: Seconds it took.
  returned: always, unless no member answered
  type: float
  sample: 0.1
digest:
  description: Digest that was compared, of the document or (without O(key)) of the whole state.
  returned: always, unless no member answered
  type: str
  sample: sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
results:
  description: What each member holds.
  returned: always, unless no member answered
  type: list
  elements: dict
  contains:
    addr:
      description: Address of the member.
      type: str
      returned: always
    port:
      description: Gossip port of the member.
      type: int
      returned: always
    name:
      description: Name of the member.
      type: str
      returned: always
    state:
      description: V(alive) or V(suspect).
      type: str
      returned: always
    holds:
      description: Whether it holds what was asked for.
      type: bool
      returned: always
    version:
      description: The version that it holds, when that is known.
      type: str
      returned: always
    digest:
      description: The digest that it holds, when that is known.
      type: str
      returned: always
    reason:
      description: Why it does not count.
      type: str
      returned: always
  sample:
    - addr: 198.18.0.11
      port: 8000
      name: host1
      state: alive
      holds: true
      version: 019a3c1e5b2f0000@198.18.0.11:8000
      digest: sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
      reason: ""
laggards:
  description: Those of RV(results) that do not hold it.
  returned: always, unless no member answered
  type: list
  elements: dict
  sample: []
endpoint:
  description: The member that was asked.
  returned: always, unless no member answered
  type: str
  sample: unix:///run/xdp-gossip/api.sock
attempts:
  description: Each endpoint that was tried and why it did not answer.
  returned: failure, when no member answered
  type: list
  elements: dict
  sample: [{"endpoint": "http://198.18.0.11:8001", "reason": "Connection refused"}]
"""

import re
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import ClientError
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet, check_key, check_wait, digest_of
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._module import (
    connection_spec,
    content_of,
    content_spec,
    fail,
    open_fleet,
)
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ConfigError


def question_of(module: AnsibleModule) -> dict[str, str | None]:
    """What is asked: key, version, digest. Raises ``ConfigError``."""
    params = module.params
    if params["key"] is None:
        return {}
    digest = params["digest"]
    if digest is not None:
        match = re.fullmatch(r"(?:sha256:)?([0-9a-fA-F]{64})", digest.strip())
        if not match:
            raise ConfigError("digest: expected sha256: and 64 hexadecimal digits, got %r" % clip(digest))
        digest = "sha256:" + match.group(1).lower()
    wanted = content_of(module)[0]
    if wanted is not None:
        digest = digest_of(wanted)
    return {"key": check_key(params["key"]), "version": params["version"], "digest": digest}


def verify(module: AnsibleModule, fleet: Fleet, question: dict[str, str | None]) -> None:
    """Ask, and end the module with the answer."""
    wait = module.params["wait"]
    answer, elapsed = fleet.converge(question, wait, module.params["wait_timeout"])
    result: dict[str, t.Any] = {
        "converged": answer.converged,
        "members": answer.members,
        "confirmed": answer.confirmed,
        "elapsed": round(elapsed, 3),
        "digest": question.get("digest") or answer.digest,
        "results": answer.results,
        "laggards": answer.laggards,
        "endpoint": fleet.endpoint,
    }
    if answer.converged:
        module.exit_json(changed=False, **result)
    what = "the same state" if not question else "document %r" % clip(question["key"] or "")
    if question.get("version"):
        what += " version %s" % clip(question["version"] or "")
    module.fail_json(
        msg="%d of %d members hold %s after %.1f s, expected %s. Missing: %s"
        % (answer.confirmed, answer.members, what, elapsed, wait, answer.describe_laggards() or "nobody that is known"),
        **result
    )


def main() -> None:
    contents = ("content", "value", "src")
    module = AnsibleModule(
        argument_spec=dict(
            connection_spec(),
            key={"type": "str", "no_log": False},
            version={"type": "str"},
            digest={"type": "str"},
            wait={"type": "str", "default": "all"},
            wait_timeout={"type": "int", "default": 30},
            **content_spec()
        ),
        mutually_exclusive=[("digest",) + contents, ("token", "token_file")],
        required_by=dict.fromkeys(("version", "digest") + contents, "key"),
        supports_check_mode=True,
        no_log=True,
    )
    try:
        if check_wait(module.params["wait"]) == "none":
            raise ConfigError("wait: expected majority, all or a number of members, got 'none'")
        question = question_of(module)
        verify(module, open_fleet(module), question)
    except ClientError as exc:
        fail(module, exc)


if __name__ == "__main__":
    main()
