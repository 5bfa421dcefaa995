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
  - Asks one member whether the members of the fleet hold a given version, digest or content of a document, or whether
    all members have deleted the document. Without O(key), the module asks whether all members hold the same documents.
    With O(applied), it also asks whether members have written the files that they render from the document.
  - If fewer members hold the document than O(wait) requires, the task fails and names each member that lags behind,
    with the reason. The module changes nothing, unless O(repair) is set and members have to catch up.
  - The asked member knows from gossip what the other members hold. With O(direct), the module asks each member itself.
requirements:
  - PyYAML on the target, only for O(value) with O(content_type=yaml)
extends_documentation_fragment:
  - xdp_gossip.fleet.connection
  - xdp_gossip.fleet.attributes
  - xdp_gossip.fleet.attributes.action_group
attributes:
  check_mode:
    details: With O(repair), members that lag behind are not asked to sync, and the task does not fail because of them.
  diff_mode:
    support: N/A
    details: The module changes no content.
options:
  key:
    description:
      - Name of the document. If O(key) is omitted, the module compares the complete state of the members.
      - Without O(version), O(digest) or a content, all members must hold the version that the asked member holds.
    type: str
  state:
    description:
      - V(present) requires that members hold the document. V(absent) requires that members hold no document of this
        name.
      - With V(absent) and the O(version) of the deletion, members must also have received that deletion or a later one.
        A member without the deletion would still accept the document from another member.
    type: str
    choices: [present, absent]
    default: present
  version:
    description: Version that members must hold, as returned in RV(xdp_gossip.fleet.xdp_gossip_publish#module:version).
    type: str
  digest:
    description: SHA-256 of the content that members must hold, with or without C(sha256:) in front.
    type: str
  content:
    description: The content that members must hold, byte for byte (UTF-8).
    type: raw
  value:
    description:
      - The content that members must hold, as data. The module converts data to text in the same way as
        O(xdp_gossip.fleet.xdp_gossip_publish#module:value).
    type: raw
  src:
    description:
      - File whose bytes members must hold. The file is on the controller unless O(remote_src=true). On the controller,
        the module searches for the file like M(ansible.builtin.copy), in C(files) of the role or beside the playbook,
        and decrypts a file that Ansible Vault has encrypted. In the playbooks of a collection, the module also searches
        in the current directory.
    type: path
  remote_src:
    description:
      - Whether O(src) is a file on the target host.
      - With V(false), the default, the task cannot run with C(async).
    type: bool
  content_type:
    description:
      - Format for O(value) if that is data and not text, either V(json) or V(yaml). The module does not compare the
        documents' content types.
    type: str
  wait:
    description: How many members must hold the document. The value is V(majority), V(all), or a number of members.
    type: str
    default: all
  wait_timeout:
    description: Longest time to wait until enough members hold the document, in seconds. With 0, the module asks once.
    type: int
    default: 30
  applied:
    description:
      - Count only members whose agents have also written all files that they render from the document, or render no
        file from it.
      - Needs O(key), and excludes O(state=absent) and O(direct).
      - Waiting ends early if every member that does not count has refused the document.
    type: bool
    default: false
  repair:
    description:
      - If members lag behind, make the asked member sync with them at once, before waiting.
      - The task counts as changed if any members lagged behind.
    type: bool
    default: false
  direct:
    description:
      - Ask each member over its own API, and count only these answers. The module reads the document's bytes from each
        member and computes their digest itself.
      - Members are asked at their addresses in the NodeList, 16 at a time, each within O(timeout) and O(retries). A
        member that does not answer is listed in RV(unreachable_members) and counts as not holding the document.
      - The module sends O(token) to the address of each member. With V(https), only hosts with a valid certificate get
        the token.
      - A member that has no such document counts as having deleted it. The members' API does not report the version of
        a deletion.
    type: bool
    default: false
  direct_scheme:
    description: V(http) or V(https) for O(direct). The default is the scheme of the first TCP endpoint, else V(http).
    type: str
    choices: [http, https]
  direct_port:
    description:
      - TCP port of the members' API for O(direct). The default is the port of the first TCP endpoint, else 8001.
    type: int
  sensitive:
    description: Do not show O(content) and O(value) in the module's reported arguments and in errors.
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
  description: Whether as many members as O(wait) requires hold the document.
  returned: once a member has answered
  type: bool
  sample: true
members:
  description: Number of members that the answer is about.
  returned: once a member has answered
  type: int
  sample: 3
confirmed:
  description: Number of members that hold the document.
  returned: once a member has answered
  type: int
  sample: 3
elapsed:
  description: Seconds until the asked member gave its last answer.
  returned: once a member has answered
  type: float
  sample: 0.1
version:
  description: Version that members had to hold, or if none was given, the version of a member that counts.
  returned: once a member has answered
  type: str
  sample: 019a3c1e5b2f0000@198.18.0.11:8000
digest:
  description:
    - Digest that members had to hold, of the document, or without O(key), of all documents. V(null) if no member holds
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
      description: Whether the member holds the version, digest or content that was asked for.
      type: bool
      returned: always
    version:
      description: The version that the member holds; V(null) if it holds none or its version is unknown.
      type: str
      returned: always
    digest:
      description: The digest that the member holds; V(null) for a deletion or if the digest is unknown.
      type: str
      returned: always
    deleted:
      description: Whether C(version) is the version of a deletion.
      type: bool
      returned: always
    reason:
      description: Why the member does not count.
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
  description:
    - Entries of RV(holdings) whose member does not hold the document. Each laggard is in exactly one of RV(missing),
      RV(stale) and RV(mismatched).
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
missing:
  description:
    - Members that have no version of the document, or have not answered. With O(state=absent), the list contains
      members that have not received the deletion.
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
stale:
  description:
    - Members with an older version than the one that was asked for. If a content was asked for, the list contains
      members with an older version than the newest version with that content.
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
mismatched:
  description:
    - Members that hold something else that is not known to be older. Such a member has, for example, a newer version,
      other content while no member has the right content, or without O(key), other documents.
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
refused:
  description:
    - Members that hold the document and could not apply it. C(applied.error) of each entry says why.
    - With O(applied), each of RV(laggards) is in exactly one of RV(missing), RV(stale), RV(mismatched), RV(refused) and
      RV(pending).
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
  description: Members that have applied the document. Members that render no file from the document are not listed.
  returned: with O(applied)
  type: list
  elements: dict
  sample: []
asked:
  description: Number of members that were asked to sync; V(null) if no member lagged behind, and in check mode.
  returned: with O(repair)
  type: int
  sample: 1
unreachable_members:
  description: Entries of RV(missing) whose member did not answer the request that O(direct) made.
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
endpoint:
  description: Endpoint of the member that answered; the first of O(endpoints) if no member answered.
  returned: unless options are wrong
  type: str
  sample: unix:///run/xdp-gossip/api.sock
failed_endpoints:
  description: Each of O(endpoints) that did not answer, with the reason.
  returned: unless options are wrong
  type: list
  elements: dict
  sample: [{"endpoint": "http://198.18.0.11:8001", "reason": "Connection refused"}]
error:
  description:
    - The failure in a form that a playbook can test, see RV(xdp_gossip.fleet.xdp_gossip_publish#module:error).
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
    """Build the question from the module's options. Raises ``ConfigError``."""
    if params["key"] is None:
        if params["state"] == "absent":
            # Ansible's own check accepts a key that is null. Without this error, the module would compare everything.
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
    """Return how to ask members over their own APIs; ``None`` without ``direct``. Raises ``ConfigError``."""
    if not params["direct"]:
        return None
    port = params["direct_port"]
    if port is not None and not 0 < port < 65536:
        raise ConfigError("direct_port: expected 1 to 65535, got %d" % port)
    return Direct(Settings(params), params["direct_scheme"], port)


def ask_directly(direct: Direct, question: Question, answer: Convergence, wait: str) -> list[dict[str, t.Any]]:
    """Ask each member itself and replace the results in ``answer``. Returns the members that did not answer."""
    exact = question
    if question.key is None:
        exact = Question(digest=answer.digest)
    elif not question.absent and question.version is None and question.digest is None:
        # The version that the asked member reports for the first member that holds the document.
        held = [result.get("version") for result in answer.results if result.get("holds") is True]
        exact = Question(question.key, held[0] if held else None)
    answer.replace(direct.ask(exact, answer.results), wait)
    return [result for result in answer.results if not result["reached"]]


def verify(module: FleetModule, fleet: Fleet, question: Question, direct: Direct | None) -> t.NoReturn:
    """Ask the fleet, with ``repair`` make members sync, and end the module. Raises ``ClientError``."""
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
            raise ConfigError(
                "state=absent: expected neither digest nor a content, because a deleted document has none"
            )
        if params["applied"] and (params["key"] is None or params["state"] == "absent" or params["direct"]):
            raise ConfigError("applied: expected key with it, and neither state=absent nor direct")
        question, direct = question_of(params), direct_of(params)
        question.applied = params["applied"]
        verify(module, module.open_fleet(), question, direct)
    except ClientError as exc:
        module.fail(exc)


if __name__ == "__main__":
    main()
