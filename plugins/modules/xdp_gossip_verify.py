#!/usr/bin/python
# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_verify
short_description: Prove that the members of a fleet have a configuration document
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Asks one member whether the members of the fleet have a given version, digest or content of a document, or whether
    all members have deleted the document. Without O(key), the module asks whether all members have the same documents.
    With O(applied), the module also asks whether members have written the files that they render from the document.
  - If fewer members have the document than O(wait) requires, the task fails and names each member without the document,
    with the reason. The module changes nothing, unless O(repair) is set and a member does not have the document.
  - The asked member has learned by gossip which documents the other members have. With O(direct), the module asks each
    member over the member's own API.
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
      - Name of the document. If O(key) is omitted, the module compares all documents of the members.
      - If the task does not specify O(version), O(digest) or a content, all members must have the same version of the
        document as the asked member.
    type: str
  state:
    description:
      - V(present) requires that members have the document. V(absent) requires that members have no document of this
        name.
      - With O(state=absent) and the O(version) of the deletion, members must also have received this deletion or a
        later deletion. A member that has not received the deletion would still accept the document from another member.
    type: str
    choices: [present, absent]
    default: present
  version:
    description: Version that members must have, as returned in RV(xdp_gossip.fleet.xdp_gossip_publish#module:version).
    type: str
  digest:
    description: SHA-256 of the content that members must have, with or without the prefix C(sha256:).
    type: str
  content:
    description: The content that members must have, byte for byte (UTF-8).
    type: raw
  value:
    description:
      - The content that members must have, as text or as data, such as a dictionary or a list. The module converts data
        to text in the same way as O(xdp_gossip.fleet.xdp_gossip_publish#module:value).
    type: raw
  src:
    description:
      - File with the bytes that members must have. By default, O(src) is a file on the controller. With
        O(remote_src=true), O(src) is a file on the target host. On the controller, the module searches for the file
        like M(ansible.builtin.copy), in C(files) of the role or beside the playbook, and decrypts a file that Ansible
        Vault has encrypted. If the playbook belongs to a collection, the module also searches for O(src) in the current
        directory.
    type: path
  remote_src:
    description:
      - Whether O(src) is a file on the target host.
      - With O(remote_src=false), the default, the task cannot run with C(async).
    type: bool
  content_type:
    description:
      - Format to which the module converts O(value) if O(value) is data and not text, either V(json) or V(yaml). The
        module does not compare the documents' content types.
    type: str
  signed_by:
    description:
      - Name of the signer that must have signed the document, as in
        O(xdp_gossip.fleet.agent#role:main:xdp_gossip_agent_signers). If the document has no signature, or one by
        another key, the task fails.
      - The asked member answers for the signature, from its own configuration. Every member verifies the signature of a
        document itself, before it accepts the document. A signature stays valid after its signer was withdrawn;
        C(withdrawn) in RV(signed_by) shows such signers.
      - O(signed_by) requires O(key), and cannot be combined with O(state=absent).
    type: str
  openable:
    description:
      - Whether every recipient of the sealed document must be able to open it. If a present member of the fleet is a
        recipient by name, but has another key now, for example because the host was rebuilt, or if no present member
        has the key of a recipient, the task fails and names the recipient.
      - Each member announces the fingerprint of its own key. A member that lies can only make the task fail, or hide
        that it cannot open the document.
      - O(openable) requires O(key), and cannot be combined with O(state=absent). A document that is not sealed makes
        the task fail.
    type: bool
    default: false
  wait:
    description:
      - Number of members that must have the document, as V(majority), V(all), or a number of members.
      - V(all) means all present members. V(majority) means more than half of all known members that have not left, dead
        members included. So the smaller side of a partition never has a majority.
      - If the asked member is isolated, which means that no other member answers it, the module asks the next of
        O(endpoints). If all of O(endpoints) are isolated, the task fails at once with the error code V(isolated).
    type: str
    default: all
  wait_timeout:
    description: Maximum seconds to wait until as many members as O(wait) requires have the document. With
      O(wait_timeout=0), the module asks only once.
    type: int
    default: 30
  applied:
    description:
      - Count only members whose agent has also written all files that it renders from the document, and members that
        render no file from the document.
      - O(applied) requires O(key), and cannot be combined with O(state=absent) or O(direct).
      - With O(applied), the module stops waiting early if every member that is not counted has refused to write files
        from the document.
    type: bool
    default: false
  repair:
    description:
      - If members do not have the document, make the asked member sync with these members before the module waits.
      - With O(repair), the task reports a change if any member did not have the document.
    type: bool
    default: false
  direct:
    description:
      - Ask each member over its own API, and count only the answers of the members themselves. The module reads the
        document's bytes from each member and computes the digest of these bytes itself.
      - The module sends the requests to the members' addresses in the NodeList, to 16 members at a time. O(timeout) and
        O(retries) apply to the request to each member. A member that does not answer is listed in
        RV(unreachable_members) and is not counted.
      - The module sends O(token) to the address of each member. With O(direct_scheme=https), the module sends the token
        only to hosts with a valid certificate.
      - With O(state=absent), a member without the document is treated as if it had received the deletion. The members'
        API does not report the version of a deletion.
    type: bool
    default: false
  direct_scheme:
    description: Scheme of the members' API for O(direct), either V(http) or V(https). The default of O(direct_scheme)
      is the scheme of the first TCP endpoint in O(endpoints), or V(http) if there is no TCP endpoint.
    type: str
    choices: [http, https]
  direct_port:
    description:
      - TCP port of the members' API for O(direct). The default of O(direct_port) is the port of the first TCP endpoint
        in O(endpoints), or 8001 if there is no TCP endpoint.
    type: int
  sensitive:
    description: Whether to hide O(content) and O(value) in the module's reported arguments and in errors.
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
  description: Whether at least as many members have the document as O(wait) requires.
  returned: once a member has answered
  type: bool
  sample: true
members:
  description: Number of present members. All of them were checked.
  returned: once a member has answered
  type: int
  sample: 3
confirmed:
  description: Number of members that have the document.
  returned: once a member has answered
  type: int
  sample: 3
known:
  description:
    - Number of known members that have not left, dead ones included. O(wait=majority) requires more than half of them.
  returned: once a member has answered
  type: int
  sample: 4
dead:
  description: Number of known members that are dead.
  returned: once a member has answered
  type: int
  sample: 1
agent_down:
  description: Number of known members whose host answers although their agent does not run.
  returned: once a member has answered
  type: int
  sample: 0
elapsed:
  description: Seconds from the first request to the last answer of the asked member.
  returned: once a member has answered
  type: float
  sample: 0.1
version:
  description: Version that members had to have. If O(version) is not given, RV(version) is the version on a member that
    meets the requirements of the task.
  returned: once a member has answered
  type: str
  sample: 019a3c1e5b2f0000@198.18.0.11:8000
digest:
  description:
    - Digest of the document that members had to have. Without O(key), RV(digest) is the digest over all documents.
      RV(digest) is V(null) if no member has the document.
  returned: once a member has answered
  type: str
  sample: sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
signed_by:
  description:
    - Who signed the document, as the asked member says. RV(signed_by) is V(null) if the document has no signature, and
      if the asked member does not have RV(version).
  returned: with O(key), once a member has answered, unless O(state=absent)
  type: dict
  contains:
    signer:
      description: Name of the signer; V(null) if no signer in the member's configuration has this key for the document.
      type: str
      returned: always
    key:
      description: Fingerprint of the public key, as C(ssh-keygen -l) shows it.
      type: str
      returned: always
    withdrawn:
      description: Whether the signer may not sign any more.
      type: bool
      returned: always
  sample: {"signer": "release", "key": "SHA256:9Jn6v6zKQGxqzJjKZ0V1GgJ9CEbSHrQKx4mRJrqcXqM", "withdrawn": false}
sealed:
  description:
    - Recipients, type and size of a sealed document, see RV(xdp_gossip.fleet.xdp_gossip_publish#module:sealed).
      RV(sealed) is V(null) if the document is not sealed. C(damaged) says why nobody can open the document, or is
      V(null).
  returned: with O(key), once a member has answered, unless O(state=absent)
  type: dict
  sample: null
openers:
  description: Names of the present members whose key can open the sealed document, as the members say; empty if the
    document is not sealed.
  returned: with O(key), once a member has answered, unless O(state=absent)
  type: list
  elements: str
  sample: [web1, web2]
unable:
  description: Names of the recipients of the sealed document whose key no present member has.
  returned: with O(key), once a member has answered, unless O(state=absent)
  type: list
  elements: str
  sample: []
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
      description: Whether the member has the version, digest or content that the task requires.
      type: bool
      returned: always
    version:
      description: Version of the document on the member. C(version) is V(null) if the member has no version or its
        version is unknown.
      type: str
      returned: always
    digest:
      description: Digest of the document on the member. C(digest) is V(null) after a deletion or if the digest is
        unknown.
      type: str
      returned: always
    deleted:
      description: Whether C(version) is the version of a deletion.
      type: bool
      returned: always
    reason:
      description: Reason why the member was not counted.
      type: str
      returned: always
    reached:
      description: Whether the member answered over its own API.
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
    - The entries of RV(holdings) for members that do not meet the requirements of the task. Each laggard is in exactly
      one of RV(missing), RV(stale) and RV(mismatched).
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
missing:
  description:
    - Members that have no version of the document, and members that have not answered. With O(state=absent),
      RV(missing) contains members that have not received the deletion.
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
stale:
  description:
    - Members whose version is older than the version that the task requires. If the task requires a content, RV(stale)
      contains members whose version is older than the newest version with this content.
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
mismatched:
  description:
    - Members whose version or content differs from the required version or content, and whose version is not known to
      be older. For example, RV(mismatched) contains members with a newer version. If no member has the required
      content, RV(mismatched) contains all members with the document. Without O(key), RV(mismatched) contains members
      with different documents.
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
refused:
  description:
    - Members that have the document but could not write the files that they render from it. C(applied.error) of each
      entry of RV(refused) contains the reason.
    - With O(applied), each of RV(laggards) is in exactly one of RV(missing), RV(stale), RV(mismatched), RV(refused) and
      RV(pending).
  returned: with O(applied)
  type: list
  elements: dict
  sample: []
pending:
  description: Members that have the document but have not yet written the files that they render from it.
  returned: with O(applied)
  type: list
  elements: dict
  sample: []
applied:
  description: Members that have written all files that they render from the document. RV(applied) does not contain
    members that render no file from the document.
  returned: with O(applied)
  type: list
  elements: dict
  sample: []
asked:
  description: Number of members with which the asked member started a sync because of O(repair). RV(asked) is V(null)
    in check mode, and if all members had the document.
  returned: with O(repair)
  type: int
  sample: 1
unreachable_members:
  description: The entries of RV(missing) for members that did not answer a request that the module sent because of
    O(direct).
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
endpoint:
  description: Endpoint of the member that answered, or the first of O(endpoints) if no member answered.
  returned: unless options are wrong
  type: str
  sample: unix:///run/xdp-gossip/api.sock
failed_endpoints:
  description: The entries of O(endpoints) that did not answer, each with the reason.
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
    """Build the ``Question`` to the agent from the module's options. Raises ``ConfigError``."""
    if params["key"] is None:
        if params["state"] == "absent":
            # Ansible's own check accepts a key that is null. Without this error, the module would compare all documents
            # of the members.
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
    """Return the client that asks members over their own APIs; ``None`` if the option ``direct`` is not set. Raises
    ``ConfigError``.
    """
    if not params["direct"]:
        return None
    port = params["direct_port"]
    if port is not None and not 0 < port < 65536:
        raise ConfigError("direct_port: expected 1 to 65535, got %d" % port)
    return Direct(Settings(params), params["direct_scheme"], port)


def ask_directly(direct: Direct, question: Question, answer: Convergence, wait: str) -> list[dict[str, t.Any]]:
    """Ask each member over its own API, and replace the results in ``answer`` by the members' own answers. Returns the
    members that did not answer.
    """
    exact = question
    if question.key is None:
        exact = Question(digest=answer.digest)
    elif not question.absent and question.version is None and question.digest is None:
        # Use the version of the first member that, according to the asked member, has the document.
        held = [result.get("version") for result in answer.results if result.get("holds") is True]
        exact = Question(question.key, held[0] if held else None)
    answer.replace(direct.ask(exact, answer.results), wait)
    return [result for result in answer.results if not result["reached"]]


def check_signature(module: FleetModule, fleet: Fleet, key: str, result: dict[str, t.Any]) -> str:
    """Add ``signed_by`` to ``result``. Returns why the option ``signed_by`` is not met; "" if it is."""
    held = fleet.described(key) or {}
    same = result["version"] in (None, held.get("version"))
    found = held.get("signed_by") if same else None
    result["signed_by"] = found = found if isinstance(found, dict) else None
    wanted = module.params["signed_by"]
    if wanted is None or (found is not None and found.get("signer") == wanted):
        return ""
    told = "no signature"
    if not same:
        told = "version %s of it on this member" % clip(str(held.get("version")))
    elif found is not None:
        told = "one by %s with the key %s" % (clip(str(found.get("signer") or "nobody")), clip(str(found.get("key"))))
    about = (fleet.endpoint, clip(key), result["version"], wanted, told)
    return "%s: document %r version %s: expected a signature by %s, got %s" % about


def check_openers(module: FleetModule, fleet: Fleet, key: str, result: dict[str, t.Any]) -> str:
    """Add ``sealed``, ``openers`` and ``unable`` to ``result``. Returns why the option ``openable`` is not met; "" if
    it is.
    """
    described = fleet.described(key) or {}
    found = described.get("sealed") if result["version"] in (None, described.get("version")) else None
    result["sealed"] = found = found if isinstance(found, dict) else None
    result["openers"], result["unable"] = [], []
    wanted = module.params["openable"]
    if found is None or not isinstance(found.get("recipients"), list):
        return "%s: document %r: expected a sealed document" % (fleet.endpoint, clip(key)) if wanted else ""
    if found.get("damaged"):
        told = (fleet.endpoint, clip(key), clip(str(found["damaged"])))
        return "%s: document %r: its envelope is damaged: %s" % told if wanted else ""
    nodes, _problems = fleet.nodes(("alive", "suspect"))
    holders: dict[str, list[str]] = {}
    for node in nodes:
        if node["sealing"]:
            holders.setdefault(node["sealing"], []).append(node["name"])
    openers: set[str] = set()
    unable: list[str] = []
    for one in found["recipients"]:
        name, own = (str(one.get(field)) for field in ("name", "key")) if isinstance(one, dict) else ("", "")
        openers.update(holders.get(own, ()))
        # The controller is no member.
        if own not in holders and not name.startswith("@"):
            unable.append(name or own)
    result["openers"], result["unable"] = sorted(openers), sorted(unable)
    if not unable or not wanted:
        return ""
    return "%s: document %r: expected that all recipients can open it, but no present member has the key of %s: %s" % (
        fleet.endpoint,
        clip(key),
        ", ".join(clip(name) for name in sorted(unable)[:20]),
        "if a host was rebuilt, seal the document again with the playbook xdp_gossip.fleet.reseal",
    )


def verify(module: FleetModule, fleet: Fleet, question: Question, direct: Direct | None) -> t.NoReturn:
    """Ask the fleet, sync members if ``repair`` is set, and end the module with the result. Raises ``ClientError``."""
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
        **answer.counts(),
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
    wrong = ""
    if question.key is not None and not question.absent:
        wrong = check_signature(module, fleet, question.key, result)
        wrong = check_openers(module, fleet, question.key, result) or wrong
    if wrong and answer.converged:
        module.fail(wrong, **result)
    if answer.converged or (needed and module.check_mode):
        module.succeed(**result)
    module.fail(
        "%d of %d members %s %s after %.1f s, expected %s.%s Missing: %s"
        % (
            answer.confirmed,
            answer.members,
            "have applied" if question.applied else "hold",
            question,
            elapsed,
            wait,
            answer.describe_absent(),
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
            signed_by={"type": "str"},
            openable={"type": "bool", "default": False},
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
        required_by=dict.fromkeys(("version", "digest", "signed_by") + SOURCES, "key"),
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
        if params["state"] == "absent" and params["signed_by"] is not None:
            raise ConfigError("state=absent: expected no signed_by, because only a document has a signature")
        if params["openable"] and (params["key"] is None or params["state"] == "absent"):
            raise ConfigError("openable: expected key with it, and not state=absent")
        if params["applied"] and (params["key"] is None or params["state"] == "absent" or params["direct"]):
            raise ConfigError("applied: expected key with it, and neither state=absent nor direct")
        question, direct = question_of(params), direct_of(params)
        question.applied = params["applied"]
        verify(module, module.open_fleet(), question, direct)
    except ClientError as exc:
        module.fail(exc)


if __name__ == "__main__":
    main()
