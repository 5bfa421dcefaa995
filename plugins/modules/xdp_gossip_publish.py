#!/usr/bin/python
# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_publish
short_description: Publish a configuration document to a fleet
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Writes one named document of the fleet's metadata, or deletes it, by talking to a single member.
    From there it spreads to every other one.
  - Nothing is written when the fleet already holds the wanted content, whatever O(if_version) says.
requirements:
  - PyYAML on the target, only for O(value) with O(content_type=yaml)
extends_documentation_fragment:
  - xdp_gossip.fleet.connection
  - xdp_gossip.fleet.attributes
attributes:
  check_mode:
    details:
      - Predicts the change and the digest, and a failing O(if_version). The version of a new document is not known
        before it is written, and nothing is waited for.
options:
  key:
    description:
      - Name of the document, 1 to 512 bytes. Slashes divide it into segments, none of which may be empty, C(.) or
        C(..).
    type: str
    default: default
  state:
    description: Whether the document shall be there.
    type: str
    choices: [present, absent]
    default: present
  content:
    description: The document's content, byte for byte (UTF-8).
    type: str
  value:
    description:
      - The document's content as data. Text is published as it is; anything else is written as JSON, or as YAML with
        O(content_type=yaml), always in the same way, so that equal data gives an equal digest.
    type: raw
  src:
    description: File on the target host whose bytes are the content.
    type: path
  content_type:
    description:
      - What readers are told about the content.
      - When not given, a document that is only of another type is left alone, and a new one is V(json) when O(value) is
        not text, else V(raw).
    type: str
    choices: [raw, text, json, yaml]
  if_version:
    description:
      - Write only while the document has this version on the member that is asked; V(absent) stands for no document.
      - Fails when it has another one, with both versions in the message.
      - The check is made on one member. Of two writers on different members at the same moment both may pass it, one
        wins everywhere, and the other's content stays in the history.
    type: str
  author:
    description: Who publishes, kept with the version.
    type: str
  comment:
    description: Why, kept with the version.
    type: str
  wait:
    description:
      - How many members must hold the document before the task succeeds. V(none), V(majority), V(all), or a number
        of members.
      - Waits also when nothing was changed, so that a second run proves the same as the first.
      - After a deletion it is the members' whole state that is compared.
    type: str
    default: none
  wait_timeout:
    description: Seconds to wait at most. Then the task fails and names the members that lag behind.
    type: int
    default: 60
  sensitive:
    description:
      - Keep the content out of the diff and of the module's reported arguments. Its size and digest are still shown.
    type: bool
    default: false
seealso:
  - module: xdp_gossip.fleet.xdp_gossip_verify
  - plugin: xdp_gossip.fleet.metadata
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Publish a document to the fleet and wait until every member has it
  xdp_gossip.fleet.xdp_gossip_publish:
    key: app/limits
    value:
      requests_per_second: 200
      burst: 50
    wait: all
    wait_timeout: 30

- name: Publish a file that lies on the target
  xdp_gossip.fleet.xdp_gossip_publish:
    key: haproxy.cfg
    src: /etc/haproxy/haproxy.cfg
    content_type: text

- name: Replace exactly the version that was read before
  xdp_gossip.fleet.xdp_gossip_publish:
    key: app/leader
    content: host2
    if_version: 019a3c1e5b2f0000@198.18.0.11:8000

- name: Ask members over the network, from the control machine
  xdp_gossip.fleet.xdp_gossip_publish:
    endpoints:
      - https://198.18.0.11:8001
      - https://198.18.0.12:8001
    ca_path: /etc/ssl/fleet-ca.pem
    token_file: ~/.config/xdp-gossip/token
    content: hello
  delegate_to: localhost

- name: Remove a document
  xdp_gossip.fleet.xdp_gossip_publish:
    key: app/limits
    state: absent
"""

RETURN = r"""
key:
  description: Name of the document.
  returned: success
  type: str
  sample: app/limits
version:
  description:
    - Version of the document; of its tombstone after a deletion. V(null) in check mode when it would change, and when
      there was nothing to delete.
  returned: success
  type: str
  sample: 019a3c1e5b2f0000@198.18.0.11:8000
previous_version:
  description: Version before the task, V(null) when there was none.
  returned: success
  type: str
  sample: 019a3c1e5a000000@198.18.0.12:8000
digest:
  description: SHA-256 of the content, as C(sha256sum) computes it; V(null) for O(state=absent).
  returned: success
  type: str
  sample: sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
size:
  description: Bytes of the content.
  returned: O(state=present)
  type: int
  sample: 5
members:
  description: Members that were asked whether they hold the document. V(null) when there was no question to ask.
  returned: success
  type: int
  sample: 3
confirmed:
  description: How many of them hold it.
  returned: success
  type: int
  sample: 3
elapsed:
  description: Seconds spent waiting for them.
  returned: success
  type: float
  sample: 0.4
laggards:
  description: The members that do not hold the document (yet), as they were reported.
  returned: success, and failure of O(wait)
  type: list
  elements: dict
  sample: []
endpoint:
  description: The member that was talked to.
  returned: success
  type: str
  sample: unix:///run/xdp-gossip/api.sock
expected:
  description: The version given as O(if_version).
  returned: failure of O(if_version)
  type: str
  sample: 019a3c1e5a000000@198.18.0.12:8000
actual:
  description: The version that the document has, V(absent) when there is none.
  returned: failure of O(if_version)
  type: str
  sample: 019a3c1e5b2f0000@198.18.0.11:8000
attempts:
  description: Each endpoint that was tried and why it did not answer.
  returned: failure, when no member answered
  type: list
  elements: dict
  sample: [{"endpoint": "http://198.18.0.11:8001", "reason": "Connection refused"}]
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._client import ApiError, ClientError
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet, check_key, check_wait, digest_of
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._module import (
    connection_spec,
    content_of,
    content_spec,
    diff_text,
    fail,
    open_fleet,
)


def conflict(module: AnsibleModule, actual: str) -> t.NoReturn:
    """Fail a compare-and-set with both versions."""
    expected = module.params["if_version"]
    module.fail_json(
        msg="document %r was not written: expected version %s, the fleet has %s"
        % (clip(module.params["key"]), clip(expected), clip(actual)),
        expected=expected,
        actual=actual,
        **report(module)
    )


def report(module: AnsibleModule) -> dict[str, t.Any]:
    """What replaces the reported arguments when the content is a secret."""
    if not module.params["sensitive"]:
        return {}
    hidden = {name: "VALUE_SPECIFIED_AS_SENSITIVE" for name in ("content", "value") if module.params[name] is not None}
    return {"invocation": {"module_args": dict(module.params, **hidden)}}


def change(module: AnsibleModule, fleet: Fleet, wanted: bytes | None, content_type: str | None) -> dict[str, t.Any]:
    """Compare and write; returns the module's results."""
    key, if_version = module.params["key"], module.params["if_version"]
    found = fleet.read(key)
    held, value = found or ({}, None)
    result: dict[str, t.Any] = {
        "key": key,
        "version": held.get("version"),
        "previous_version": held.get("version"),
        "digest": None if wanted is None else digest_of(wanted),
    }
    if wanted is not None:
        result["size"] = len(wanted)
    explicit = module.params["content_type"]
    same_type = wanted is None or explicit is None or explicit == held.get("content_type")
    result["changed"] = not (wanted == value and same_type)
    if module._diff:
        hide = module.params["sensitive"]
        result["diff"] = {
            "before_header": "%s (%s)" % (key, held.get("version") or "absent"),
            "after_header": key if wanted is not None else "%s (absent)" % key,
            "before": diff_text(value, held.get("digest"), hide),
            "after": diff_text(wanted, result["digest"], hide),
        }
    if not result["changed"]:
        return result
    actual = held.get("version") or "absent"
    if if_version is not None and if_version != actual:
        conflict(module, actual)
    if module.check_mode:
        result["version"] = None
        return result
    if wanted is None:
        written = fleet.delete(key, if_version)
    else:
        about = {"content_type": content_type, "author": module.params["author"], "comment": module.params["comment"]}
        written = fleet.write(key, wanted, if_version, about)
    result["changed"] = written["changed"]
    result["version"] = written["version"]
    return result


def confirm(module: AnsibleModule, fleet: Fleet, result: dict[str, t.Any]) -> None:
    """Add to ``result`` how many members hold it; fail when ``wait`` asks for more."""
    wait = module.params["wait"]
    result.update(members=None, confirmed=None, elapsed=0.0, laggards=[])
    if module.check_mode or result["version"] is None:
        return
    # Of a deleted document the agents compare no versions; that they hold the same state includes its tombstone.
    absent = module.params["state"] == "absent"
    question = {} if absent else {"key": result["key"], "version": result["version"], "digest": result["digest"]}
    seconds = 0 if wait == "none" else module.params["wait_timeout"]
    try:
        answer, elapsed = fleet.converge(question, "all" if wait == "none" else wait, seconds)
        if absent and answer.converged and fleet.read(result["key"]) is not None:
            # The member that took the deletion is gone, and this one has not heard of it.
            answer.converged = False
    except ClientError as exc:
        if wait != "none":
            raise
        module.warn("The document was published, but the members that hold it could not be counted: %s" % exc)
        return
    result.update(
        members=answer.members, confirmed=answer.confirmed, elapsed=round(elapsed, 3), laggards=answer.laggards
    )
    if wait != "none" and not answer.converged:
        module.fail_json(
            msg="document %r version %s: %d of %d members hold it after %.1f s, expected %s. Missing: %s"
            % (clip(result["key"]), result["version"], answer.confirmed, answer.members, elapsed, wait,
               answer.describe_laggards() or "nobody that is known"),
            **dict(result, **report(module))
        )


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            connection_spec(),
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            key={"type": "str", "default": "default", "no_log": False},
            if_version={"type": "str"},
            author={"type": "str"},
            comment={"type": "str"},
            wait={"type": "str", "default": "none"},
            wait_timeout={"type": "int", "default": 60},
            sensitive={"type": "bool", "default": False},
            **content_spec()
        ),
        mutually_exclusive=[("content", "value", "src"), ("token", "token_file")],
        required_if=[("state", "present", ("content", "value", "src"), True)],
        supports_check_mode=True,
        # The system log would keep whole documents, secret ones too.
        no_log=True,
    )
    result: dict[str, t.Any] = {}
    try:
        check_key(module.params["key"])
        check_wait(module.params["wait"])
        wanted, content_type = None, None
        if module.params["state"] == "present":
            wanted, content_type = content_of(module)
        fleet = open_fleet(module)
        result = change(module, fleet, wanted, content_type)
        confirm(module, fleet, result)
    except ClientError as exc:
        if isinstance(exc, ApiError) and exc.code == "version_mismatch":
            conflict(module, str(exc.details.get("actual") or "absent"))
        fail(module, exc, **dict(result, **report(module)))
    module.exit_json(endpoint=fleet.endpoint, **dict(result, **report(module)))


if __name__ == "__main__":
    main()
