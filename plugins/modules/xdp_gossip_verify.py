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
  - Asks one member whether the members of the fleet hold a given version, digest or content of a document, whether all
    of them have deleted it, or, without O(key), whether all of them hold the same documents. With O(applied), also
    whether the files that they render from it are in effect.
  - If fewer members hold it than O(wait) asks for, the task fails and names each member that lags behind, with the
    reason. It changes nothing, unless O(repair) makes members catch up.
  - The member that is asked knows from gossip what the others hold. With O(direct) the module asks each of them itself.
requirements:
  - PyYAML on the target, only for O(value) with O(content_type=yaml)
extends_documentation_fragment:
  - xdp_gossip.fleet.connection
  - xdp_gossip.fleet.attributes
  - xdp_gossip.fleet.attributes.action_group
attributes:
  check_mode:
    details: With O(repair), members that lag behind are not asked to sync, and are no failure.
  diff_mode:
    support: N/A
    details: Has no content to show.
options:
  key:
    description:
      - Name of the document. If omitted, the module compares the complete state of the members.
      - Without O(version), O(digest) or a content, the members must hold the version of the member that is asked.
    type: str
  state:
    description:
      - V(present) expects members to hold the document, V(absent) to hold none of this name.
      - With V(absent) and the O(version) of the deletion, they must also know of it or of a later one. Two members that
        do not could still pass the document on.
    type: str
    choices: [present, absent]
    default: present
  version:
    description: Version that the members must hold, as RV(xdp_gossip.fleet.xdp_gossip_publish#module:version) gave it.
    type: str
  digest:
    description: SHA-256 of the content that they must hold, with or without C(sha256:) in front.
    type: str
  content:
    description: The content that they must hold, byte for byte (UTF-8).
    type: raw
  value:
    description: The content as data, written as O(xdp_gossip.fleet.xdp_gossip_publish#module:value) is.
    type: raw
  src:
    description:
      - File whose bytes they must hold, on the controller unless O(remote_src=true). It is searched there like in
        M(ansible.builtin.copy), in C(files) of the role or beside the playbook, and decrypted if it is encrypted with
        Ansible Vault. Playbooks of collections also search in the current directory.
    type: path
  remote_src:
    description:
      - Whether O(src) is a file on the target host.
      - With V(false), which is the default, the task cannot run with C(async).
    type: bool
  content_type:
    description: Format in which O(value) is written if it is not text, V(json) or V(yaml). It is not compared.
    type: str
  wait:
    description: How many members must hold it. V(majority), V(all), or a number of members.
    type: str
    default: all
  wait_timeout:
    description: Longest time to wait for them in seconds; 0 asks once.
    type: int
    default: 30
  applied:
    description:
      - Count only members that have also put the files in place that their agents render from the document, or render
        none.
      - Needs O(key), and excludes O(state=absent) and O(direct).
      - Waiting ends early if all missing members have refused the document.
    type: bool
    default: false
  repair:
    description:
      - If members lag behind, make the member that is asked sync with them at once, before waiting.
      - The task is changed if there were any.
    type: bool
    default: false
  direct:
    description:
      - Ask each member over its own API, and count only these answers. The module reads the document's bytes and
        computes their digest itself.
      - Members are asked at the address of the NodeList, 16 at a time, each within O(timeout) and O(retries). One that
        does not answer is in RV(unreachable_members) and counts as not holding it.
      - O(token) is sent to each of these addresses; use V(https) if members are not trusted with it.
      - A deletion is proved by the absence of the document; this API does not tell its version.
    type: bool
    default: false
  direct_scheme:
    description: V(http) or V(https) for O(direct). The default is that of the first TCP endpoint, or else V(http).
    type: str
    choices: [http, https]
  direct_port:
    description:
      - TCP port of the members' API for O(direct). The default is that of the first TCP endpoint, or else 8001.
    type: int
  sensitive:
    description: Keep O(content) and O(value) out of the module's reported arguments and of errors.
    type: bool
    default: false
seealso:
  - module: xdp_gossip.fleet.xdp_gossip_publish
"""

EXAMPLES = r"""
- name: Publish a file of the target
  xdp_gossip.fleet.xdp_gossip_publish:
    key: etc/hosts
    src: /etc/hosts
    remote_src: true
  register: published

- name: Every member holds that file
  xdp_gossip.fleet.xdp_gossip_verify:
    key: etc/hosts
    src: /etc/hosts
    remote_src: true

- name: Every member holds the version that was just published
  xdp_gossip.fleet.xdp_gossip_verify:
    key: etc/hosts
    version: "{{ published.version }}"
    wait_timeout: 10

- name: The files that members make of it are in effect
  xdp_gossip.fleet.xdp_gossip_verify:
    key: etc/hosts
    applied: true

- name: Have laggards catch up now
  xdp_gossip.fleet.xdp_gossip_verify:
    repair: true

- name: Every member says so itself
  xdp_gossip.fleet.xdp_gossip_verify:
    endpoints:
      - https://198.18.0.11:8001
      - https://198.18.0.12:8001
    ca_path: /etc/ssl/fleet-ca.pem
    token_file: ~/.config/xdp-gossip/token
    key: etc/hosts
    version: "{{ published.version }}"
    direct: true

- name: Nobody holds a document of this name
  xdp_gossip.fleet.xdp_gossip_verify:
    key: app/no-such-document
    state: absent

- name: No two members differ in anything
  xdp_gossip.fleet.xdp_gossip_verify:
    wait_timeout: 20
"""

RETURN = r"""
converged:
  description: Whether as many members as O(wait) asks for hold it.
  returned: once a member has answered
  type: bool
  sample: true
members:
  description: Members that were asked about.
  returned: once a member has answered
  type: int
  sample: 3
confirmed:
  description: How many of them hold it.
  returned: once a member has answered
  type: int
  sample: 3
elapsed:
  description: Seconds until the member that was asked had its answer.
  returned: once a member has answered
  type: float
  sample: 0.1
version:
  description: Version that was compared, or else one that is held by a member that counts.
  returned: once a member has answered
  type: str
  sample: 019a3c1e5b2f0000@198.18.0.11:8000
digest:
  description:
    - Digest that was compared, of the document or (without O(key)) of the whole state. V(null) when no member holds
      the document.
  returned: once a member has answered
  type: str
  sample: sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
holdings:
  description: What each member holds.
  returned: once a member has answered
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
      description: The version that it holds, V(null) when it holds none or that is not known.
      type: str
      returned: always
    digest:
      description: The digest that it holds, V(null) for a deletion and when it is not known.
      type: str
      returned: always
    deleted:
      description: Whether C(version) is that of a deletion.
      type: bool
      returned: always
    reason:
      description: Why it does not count.
      type: str
      returned: always
    reached:
      description: Whether the member itself has answered.
      type: bool
      returned: with O(direct)
  sample:
    - addr: 198.18.0.11
      port: 8000
      name: host1
      state: alive
      holds: true
      version: 019a3c1e5b2f0000@198.18.0.11:8000
      digest: sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
      deleted: false
      reason: ""
laggards:
  description: Those of RV(holdings) that do not hold it. Each is in exactly one of the next three lists.
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
missing:
  description:
    - Members that have no version of the document, or have not answered. With O(state=absent), those that have not
      heard of the deletion.
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
stale:
  description:
    - Members with an older version than the one that was asked for or, when that was a content, than the newest one
      that members with this content have.
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
mismatched:
  description:
    - Members with something else that is not known to be older, such as a newer version, other content while nobody
      has the right one, or (without O(key)) other documents.
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
refused:
  description:
    - Members that hold the document and could not apply it. C(applied.error) of each says why.
    - With O(applied), each of RV(laggards) is in exactly one of RV(missing), RV(stale), RV(mismatched), this list and
      the next.
  returned: with O(applied)
  type: list
  elements: dict
  sample: []
pending:
  description: Members that hold the document and have not applied it yet.
  returned: with O(applied)
  type: list
  elements: dict
  sample: []
applied:
  description: Members that have applied the document. Those that make no file of it are not among them.
  returned: with O(applied)
  type: list
  elements: dict
  sample: []
asked:
  description: Members that were asked to sync; V(null) when none lagged behind, and in check mode.
  returned: with O(repair)
  type: int
  sample: 1
unreachable_members:
  description: Those of RV(missing) that did not answer O(direct).
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
endpoint:
  description: The member that was asked; the first of O(endpoints) when none answered.
  returned: unless options are wrong
  type: str
  sample: unix:///run/xdp-gossip/api.sock
failed_endpoints:
  description: Each of O(endpoints) that did not answer, and why.
  returned: unless options are wrong
  type: list
  elements: dict
  sample: [{"endpoint": "http://198.18.0.11:8001", "reason": "Connection refused"}]
error:
  description:
    - What a program can tell the failure by, see RV(xdp_gossip.fleet.xdp_gossip_publish#module:error).
  returned: failure, when a member refused the request or none answered
  type: dict
  sample: {"code": "no_member_answered", "status": null, "details": {}}
"""

import re
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._content import SOURCES, content_of, content_spec
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._convergence import Convergence, Question, check_wait
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._direct import Direct
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet, check_key, digest_of
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._module import FleetModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ClientError, ConfigError, Settings


def question_of(params: dict[str, t.Any]) -> Question:
    """What is asked. Raises ``ConfigError``."""
    if params["key"] is None:
        if params["state"] == "absent":
            # A key that is null passes Ansible's own check, and the whole state is not what is meant then.
            raise ConfigError("key: expected the name of the document that is to be absent")
        return Question()
    key = check_key(params["key"])
    if params["state"] == "absent":
        return Question(key, params["version"], absent=True)
    digest = params["digest"]
    if digest is not None:
        match = re.fullmatch(r"(?:sha256:)?([0-9a-fA-F]{64})", digest.strip())
        if not match:
            raise ConfigError("digest: expected sha256: and 64 hexadecimal digits, got %r" % clip(digest))
        digest = "sha256:" + match.group(1).lower()
    wanted = content_of(params)[0]
    if wanted is not None:
        digest = digest_of(wanted)
    return Question(key, params["version"], digest)


def direct_of(params: dict[str, t.Any]) -> Direct | None:
    """How to ask members directly, if that is wanted. Raises ``ConfigError``."""
    if not params["direct"]:
        return None
    port = params["direct_port"]
    if port is not None and not 0 < port < 65536:
        raise ConfigError("direct_port: expected 1 to 65535, got %d" % port)
    return Direct(Settings(params), params["direct_scheme"], port)


def ask_directly(direct: Direct, question: Question, answer: Convergence, wait: str) -> list[dict[str, t.Any]]:
    """Put what each member says itself into ``answer``; returns those that did not answer."""
    exact = question
    if question.key is None:
        exact = Question(digest=answer.digest)
    elif not question.absent and question.version is None and question.digest is None:
        # The version that the first member holds, as it said.
        held = [result.get("version") for result in answer.results if result.get("holds") is True]
        exact = Question(question.key, held[0] if held else None)
    answer.replace(direct.ask(exact, answer.results), wait)
    return [result for result in answer.results if not result["reached"]]


def verify(module: FleetModule, fleet: Fleet, question: Question, direct: Direct | None) -> t.NoReturn:
    """Ask, and end the module with the answer. Raises ``ClientError``."""
    wait = module.params["wait"]
    asked, needed = None, False
    if module.params["repair"]:
        answer, elapsed = fleet.converge(question, wait, 0)
        needed = any(one.get("holds") is not True for one in answer.results)
        if needed and not module.check_mode:
            asked = fleet.repair(question.key)
    if not needed or not module.check_mode:
        answer, elapsed = fleet.converge(question, wait, module.params["wait_timeout"])
    unreachable = ask_directly(direct, question, answer, wait) if direct else []
    holder: dict[str, t.Any] = next((result for result in answer.results if result.get("holds") is True), {})
    result: dict[str, t.Any] = {
        "changed": needed,
        "converged": answer.converged,
        "members": answer.members,
        "confirmed": answer.confirmed,
        "elapsed": round(elapsed, 3),
        "version": question.version or holder.get("version"),
        "digest": answer.digest if question.key is None else question.digest or holder.get("digest"),
        "holdings": answer.results,
        "laggards": answer.laggards,
        "unreachable_members": unreachable,
    }
    result.update(answer.kinds(question))
    if question.applied:
        result["applied"] = [
            one for one in answer.results if one["applied"].get("state") == "applied" and one not in answer.laggards
        ]
    if module.params["repair"]:
        result["asked"] = asked
    if answer.converged or (needed and module.check_mode):
        module.succeed(**result)
    module.fail(
        "%d of %d members %s %s after %.1f s, expected %s. Missing: %s"
        % (
            answer.confirmed,
            answer.members,
            "have applied" if question.applied else "hold",
            question,
            elapsed,
            wait,
            answer.describe_laggards(),
        ),
        **result,
    )


def main() -> None:
    module = FleetModule(
        argument_spec=dict(
            content_spec(),
            key={"type": "str", "no_log": False},
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            version={"type": "str"},
            digest={"type": "str"},
            wait={"type": "str", "default": "all"},
            wait_timeout={"type": "int", "default": 30},
            applied={"type": "bool", "default": False},
            repair={"type": "bool", "default": False},
            direct={"type": "bool", "default": False},
            direct_scheme={"type": "str", "choices": ["http", "https"]},
            direct_port={"type": "int"},
            sensitive={"type": "bool", "default": False},
        ),
        mutually_exclusive=[("digest",) + SOURCES],
        required_by=dict.fromkeys(("version", "digest") + SOURCES, "key"),
        required_if=[("state", "absent", ("key",))],
        no_log=True,
    )
    params = module.params
    try:
        if check_wait(params["wait"]) == "none":
            raise ConfigError("wait: expected majority, all or a number of members, got 'none'")
        if params["state"] == "absent" and any(params[name] is not None for name in ("digest",) + SOURCES):
            raise ConfigError("state=absent: expected neither digest nor a content, what is deleted has none")
        if params["applied"] and (params["key"] is None or params["state"] == "absent" or params["direct"]):
            raise ConfigError("applied: expected key with it, and neither state=absent nor direct")
        question, direct = question_of(params), direct_of(params)
        question.applied = params["applied"]
        verify(module, module.open_fleet(), question, direct)
    except ClientError as exc:
        module.fail(exc)


if __name__ == "__main__":
    main()
