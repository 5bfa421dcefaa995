#!/usr/bin/python
# Copyright (c) 2026, the XDP Gossip contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: xdp_gossip_publish
short_description: Publish configuration documents to a fleet
version_added: 0.1.0
author: XDP Gossip contributors (@xdp-gossip)
description:
  - Writes or deletes named documents of the fleet's metadata through a single member. From there they spread to all
    other members.
  - Takes one document (O(key)) or many (O(documents)). With many, the module checks all options, reads all documents
    and compares all O(if_version) conditions before it writes anything. Then it writes them at once, all or none, and
    each member shows them together; see O(atomic).
  - If the fleet already holds the wanted content, nothing is written, whatever O(if_version) says. So it is safe to
    repeat a task whose answer was lost.
requirements:
  - PyYAML on the target, only for O(value) with O(content_type=yaml)
extends_documentation_fragment:
  - xdp_gossip.fleet.connection
  - xdp_gossip.fleet.attributes
  - xdp_gossip.fleet.attributes.action_group
attributes:
  check_mode:
    details:
      - Predicts the change and the digest, and a failing O(if_version). It does not know the version of a new document,
        and does not wait.
options:
  key:
    description:
      - Name of the document, 1 to 512 bytes. Slashes divide it into segments, none of which may be empty, C(.) or
        C(..).
      - If neither this nor O(documents) is given, the document is V(default).
    type: str
  documents:
    description:
      - Many documents. The names are keys, as for O(key). The values are dictionaries of options with the same meaning
        as here, C(content), C(value), C(src), C(remote_src), C(content_type), C(state), C(if_version), C(expires),
        C(author) and C(comment).
      - O(content_type), O(state), O(remote_src), O(expires), O(author) and O(comment) are the defaults of all
        documents.
      - An empty dictionary changes nothing.
      - Mutually exclusive with O(key), O(content), O(value), O(src), O(if_version) and O(rollback_to).
    type: dict
  atomic:
    description:
      - Whether O(documents) are written together, all or none.
      - V(auto) writes them together if possible, and otherwise one by one in the order given, with a warning.
        V(required) fails before anything is written if it is not possible. V(never) always writes them one by one.
      - It is not possible with more than 64 documents, with names of more than 4096 bytes together, or if the documents
        differ in C(author) or C(comment).
    type: str
    choices: [auto, required, never]
    default: auto
  state:
    description: Whether the document should exist.
    type: str
    choices: [present, absent]
    default: present
  content:
    description:
      - The document's content, byte for byte (UTF-8).
      - Must be text or a number. Before ansible-core 2.19 a template whose text looks like a list or a dictionary
        becomes one, unless it ends in the filter P(ansible.builtin.string#filter).
    type: raw
  value:
    description:
      - The document's content as data. Text is published as it is; anything else is written as JSON, or as YAML with
        O(content_type=yaml), always in the same way, so equal data has an equal digest.
    type: raw
  src:
    description:
      - File whose bytes are the content, on the controller unless O(remote_src=true). It is searched there like in
        M(ansible.builtin.copy), in C(files) of the role or beside the playbook, and decrypted if it is encrypted with
        Ansible Vault. Playbooks of collections also search in the current directory.
    type: path
  remote_src:
    description:
      - Whether O(src) is a file on the target host.
      - With V(false), which is the default, the task cannot run with C(async).
    type: bool
  content_type:
    description:
      - Type of the content, for its readers. If given, a document that differs only in its type is written again.
      - The default is V(json) for data in O(value), else the type of the current version. For a new document the suffix
        of its key, else of O(src), decides (C(.json), C(.yaml), C(.yml) or C(.txt)), else it is V(raw).
      - V(raw), V(text), V(json), V(yaml), or any other name or media type, such as V(toml) and V(application/pdf).
        Members check only contents of type V(text), V(json) or V(yaml).
    type: str
  if_version:
    description:
      - Write only if the document has this version on the member that is asked; V(absent) means no document.
      - If it has another version, the task fails with both versions in RV(expected) and RV(actual), or RV(conflicts).
      - One member checks. Two writers on different members at the same moment may both pass; then one wins everywhere,
        and the other's content stays in the history.
      - Two writers of the same content both succeed, but only one of them with a change.
    type: str
  expires:
    description:
      - Lifetime of the document, in seconds, or a number followed by V(s), V(m), V(h), V(d) or V(w), such as V(30m) or
        V(7d), at most ten years; or V(never). Afterwards it is deleted on every member.
      - An unchanged document is written again, and counts as changed, if less than half of this time is left, or more
        than all of it. So a task that runs regularly keeps the document alive, and an immediate repetition changes
        nothing.
      - If not given, an unchanged document keeps its expiry, and a written one never expires.
    type: str
  rollback_to:
    description:
      - A former version of the document. Its content and type are published again, as a new version.
      - It must be in the history of the member that is asked. If the document already has that content and type,
        nothing is written.
      - The new version expires when the former one would have. If that time has passed, the task fails, unless
        O(expires) is given.
      - Mutually exclusive with O(documents), O(content), O(value), O(src) and O(content_type).
    type: str
  author:
    description: Author, kept with the version.
    type: str
  comment:
    description: Reason, kept with the version.
    type: str
  wait:
    description:
      - How many members must hold each document before the task succeeds. V(none), V(majority), V(all), or a number
        of members.
      - The default is V(all) if O(wait_for) is given, else V(none).
      - The task also waits if nothing was changed, so a second run proves the same as the first.
      - After a deletion, members count if they know of it and hold no such document.
    type: str
  wait_for:
    description:
      - What a member must do to count. With V(held) it holds the document. With V(applied) it has also put the files in
        place that its agent renders from it; a member that renders none only has to hold it.
      - With V(applied) the task fails as soon as all missing members have refused the document, and names each reason.
      - After a deletion, V(applied) means V(held). The default is V(held).
    type: str
    choices: [held, applied]
  wait_timeout:
    description:
      - Longest time to wait in seconds, for all documents together. Then the task fails and names the members that lag
        behind.
    type: int
    default: 60
  sensitive:
    description:
      - Keep contents out of the diff, of the module's reported arguments, and of errors. Names, sizes and digests are
        still shown; a short content can be guessed from its digest.
      - Nothing is ever written to the system log of the target.
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
  register: published

- name: Replace exactly that version
  xdp_gossip.fleet.xdp_gossip_publish:
    key: app/limits
    value:
      requests_per_second: 250
      burst: 50
    if_version: "{{ published.version }}"

- name: Publish a file that lies on the target
  xdp_gossip.fleet.xdp_gossip_publish:
    key: etc/hosts
    src: /etc/hosts
    remote_src: true
    content_type: text

- name: Publish several documents with one task
  xdp_gossip.fleet.xdp_gossip_publish:
    documents:
      app/motd:
        content: Welcome
      app/features:
        value: {search: true, beta: false}
        content_type: yaml
      app/limits.old:
        state: absent
    comment: release 7
    wait: all

- name: Publish a notice that is gone after two hours
  xdp_gossip.fleet.xdp_gossip_publish:
    key: app/notice
    content: Maintenance
    expires: 2h

- name: Go back to the limits of the beginning, and wait until they are in effect
  xdp_gossip.fleet.xdp_gossip_publish:
    key: app/limits
    rollback_to: "{{ published.version }}"
    comment: the new ones were too high
    wait_for: applied

- name: Publish a secret that no output shows
  xdp_gossip.fleet.xdp_gossip_publish:
    key: app/password
    content: "{{ lookup('ansible.builtin.password', '/dev/null', length=20) }}"
    sensitive: true

- name: Ask members over the network, from the control machine
  xdp_gossip.fleet.xdp_gossip_publish:
    endpoints:
      - https://198.18.0.11:8001
      - https://198.18.0.12:8001
    ca_path: /etc/ssl/fleet-ca.pem
    token_file: ~/.config/xdp-gossip/token
    content: hello
  delegate_to: localhost

- name: Remove a document, and make sure that every member has forgotten it
  xdp_gossip.fleet.xdp_gossip_publish:
    key: app/limits
    state: absent
    wait: all
"""

RETURN = r"""
key:
  description: Name of the document.
  returned: without O(documents)
  type: str
  sample: app/limits
version:
  description:
    - Version of the document; of its tombstone after a deletion. V(null) in check mode when it would change, and when
      there was nothing to delete.
  returned: without O(documents)
  type: str
  sample: 019a3c1e5b2f0000@198.18.0.11:8000
previous_version:
  description: Version before the task, V(null) when there was none.
  returned: without O(documents)
  type: str
  sample: 019a3c1e5a000000@198.18.0.12:8000
digest:
  description: SHA-256 of the content, as C(sha256sum) computes it; V(null) for O(state=absent).
  returned: without O(documents)
  type: str
  sample: sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
size:
  description: Bytes of the content.
  returned: without O(documents), and with O(state=present)
  type: int
  sample: 5
documents:
  description:
    - For each name C(changed), and C(key), C(version), C(previous_version), C(digest), C(size), C(members),
      C(confirmed) and C(laggards) as they are returned of a single document.
  returned: with O(documents)
  type: dict
  sample:
    app/motd:
      key: app/motd
      changed: true
      version: 019a3c1e5b2f0000@198.18.0.11:8000
      previous_version: null
      digest: sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
      size: 5
      members: 3
      confirmed: 3
      laggards: []
atomic:
  description: Whether all that was written was written at once; V(null) when less than two documents were.
  returned: with O(documents)
  type: bool
  sample: true
members:
  description:
    - Members that were asked whether they hold the document. V(null) in check mode, and with O(documents) and
      O(wait=none).
  returned: once a member has answered
  type: int
  sample: 3
confirmed:
  description: How many of them hold it; with O(documents), the one held by the fewest.
  returned: once a member has answered
  type: int
  sample: 3
laggards:
  description:
    - The members that do not hold the document (yet), as they were reported; with O(documents), each with C(key).
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
elapsed:
  description: Seconds spent waiting for them.
  returned: once a member has answered
  type: float
  sample: 0.4
expected:
  description: The version given as O(if_version).
  returned: failure of O(if_version), without O(documents)
  type: str
  sample: 019a3c1e5a000000@198.18.0.12:8000
actual:
  description: The version that the document has, V(absent) when there is none.
  returned: failure of O(if_version), without O(documents)
  type: str
  sample: 019a3c1e5b2f0000@198.18.0.11:8000
conflicts:
  description: Every document that has another version than the one expected.
  returned: failure of O(if_version)
  type: list
  elements: dict
  contains:
    key:
      description: Name of the document.
      type: str
      returned: always
    expected:
      description: The version given as O(if_version).
      type: str
      returned: always
    actual:
      description: The version that the document has, V(absent) when there is none.
      type: str
      returned: always
  sample:
    - key: app/limits
      expected: 019a3c1e5a000000@198.18.0.12:8000
      actual: 019a3c1e5b2f0000@198.18.0.11:8000
written:
  description: Names of the documents that have been written.
  returned: failure, once a member has answered
  type: list
  elements: str
  sample: [app/motd]
unwritten:
  description: Names of the documents that should have been written and have not been.
  returned: failure, once a member has answered
  type: list
  elements: str
  sample: [app/limits]
uncertain:
  description: The document that was sent, and whose answer did not come. Running the task again settles it.
  returned: failure, once a member has answered
  type: list
  elements: str
  sample: []
endpoint:
  description: The member that was talked to; the first of O(endpoints) when none answered.
  returned: unless options are wrong
  type: str
  sample: unix:///run/xdp-gossip/api.sock
failed_endpoints:
  description: Each endpoint that did not answer, and why.
  returned: unless options are wrong
  type: list
  elements: dict
  sample: [{"endpoint": "http://198.18.0.11:8001", "reason": "Connection refused"}]
error:
  description: What a program can tell the failure by.
  returned: failure, when a member refused the request or none answered
  type: dict
  contains:
    code:
      description:
        - The agent's code. V(no_member_answered) when there was none to say so, and V(answer_lost) when a change was
          sent and not answered.
      type: str
      returned: always
    status:
      description: HTTP status, V(null) without an answer.
      type: int
      returned: always
    details:
      description: What the agent added; empty with O(sensitive).
      type: dict
      returned: always
  sample: {"code": "document_too_large", "status": 413, "details": {"limit": 16777216}}
"""

import time
import typing as t

from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._batch import (
    Conflicts,
    NotTogether,
    conflicts_of,
    write_together,
)
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._change import Change, Conflict, Wish
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._content import SOURCES, content_spec
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._convergence import check_wait
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._module import FleetModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ClientError, ConfigError

#: Options of one of many documents that the module's option of the same name stands in for.
_SHARED = ("state", "content_type", "remote_src", "expires", "author", "comment")

#: Documents that a message about waiting names.
_MOST_TOLD = 5


def document_spec() -> dict[str, t.Any]:
    """Argument spec of what is said of one document, alone or as one of many."""
    return dict(
        content_spec(),
        state={"type": "str", "choices": ["present", "absent"]},
        if_version={"type": "str"},
        expires={"type": "str"},
        author={"type": "str"},
        comment={"type": "str"},
    )


def wishes_of(params: dict[str, t.Any]) -> list[Wish]:
    """All documents that are asked for, checked. Raises ``ConfigError`` naming the document and its option."""
    if params["documents"] is None:
        return [Wish("default" if params["key"] is None else params["key"], params)]
    shared = {name: params[name] for name in _SHARED}
    validator = ArgumentSpecValidator(document_spec(), mutually_exclusive=[SOURCES])
    wishes = []
    for key, entry in params["documents"].items():
        try:
            if entry is not None and not isinstance(entry, dict):
                raise ConfigError("expected a dictionary of options, got %s" % type(entry).__name__)
            checked = validator.validate(entry or {})
            if checked.error_messages:
                raise ConfigError("; ".join(checked.error_messages))
            options = dict(checked.validated_parameters)
            options.update({name: value for name, value in shared.items() if options[name] is None})
            wishes.append(Wish(str(key), options))
        except ConfigError as exc:
            raise ConfigError("documents, %r: %s" % (clip(str(key)), exc)) from None
    return wishes


class Publication:
    """One run of the module, and what can be told of it at any time."""

    def __init__(self, module: FleetModule, wishes: list[Wish]) -> None:
        self._module = module
        self._wishes = wishes
        self._many: bool = module.params["documents"] is not None
        self._changes: list[Change] = []
        self._counts: dict[str, dict[str, t.Any]] = {}
        self._elapsed = 0.0
        self._atomic: bool | None = None
        self._wait = wait_of(module.params)

    def run(self, fleet: Fleet) -> t.NoReturn:
        """Read all, compare all, write all, wait for all; ends the module."""
        try:
            self._changes = [Change(wish, fleet) for wish in self._wishes]
            self._compare()
            if not self._module.check_mode:
                self._write(fleet)
                self._confirm(fleet)
        except Conflict as exc:
            self._fail(str(exc), [exc])
        except Conflicts as exc:
            self._fail(str(exc), exc.conflicts)
        except ClientError as exc:
            self._fail(exc)
        self._module.succeed(**self._results(predicted=True))

    def _compare(self) -> None:
        conflicts = conflicts_of(self._changes)
        if conflicts:
            self._fail("; ".join(str(exc) for exc in conflicts), conflicts)

    def _write(self, fleet: Fleet) -> None:
        """Write what is planned: at once where that is wanted and can be done."""
        planned = [change for change in self._changes if change.planned]
        if len(planned) > 1 and self._module.params["atomic"] != "never":
            try:
                write_together(fleet, self._changes)
                self._atomic = True
                return
            except NotTogether as exc:
                if self._module.params["atomic"] == "required":
                    self._fail("nothing was written, for it could not be written all or nothing: %s" % exc)
                self._module.warn("The documents are written one after the other, not all or nothing: %s" % exc)
        self._atomic = False if len(planned) > 1 else None
        for change in planned:
            change.apply()

    def _confirm(self, fleet: Fleet) -> None:
        """Count the members that hold each document; fail when ``wait`` asks for more."""
        wait = self._wait
        if wait == "none":
            if not self._many:
                self._count_once(fleet)
            return
        started = time.monotonic()
        end = started + self._module.params["wait_timeout"]
        # When the time is over, what members hold of the rest is still worth a look, but not an endless one.
        last_look = end + self._module.params["timeout"]
        for change in self._changes:
            now = time.monotonic()
            if now < last_look:
                self._count(fleet, change, wait, max(0.0, end - now))
        self._elapsed = time.monotonic() - started
        late = [change for change in self._changes if not self._counted(change).get("converged")]
        if late:
            self._fail("; ".join(self._describe(change) for change in late[:_MOST_TOLD]))

    def _count_once(self, fleet: Fleet) -> None:
        try:
            self._count(fleet, self._changes[0], "all", 0.0)
        except ClientError as exc:
            self._module.warn("The document was published, but the members that hold it could not be counted: %s" % exc)

    def _count(self, fleet: Fleet, change: Change, wait: str, seconds: float) -> None:
        question = change.question()
        question.applied = self._module.params["wait_for"] == "applied" and not question.absent
        answer, self._elapsed = fleet.converge(question, wait, seconds)
        self._counts[change.wish.key] = {
            "members": answer.members,
            "confirmed": answer.confirmed,
            "laggards": answer.laggards,
            "converged": answer.converged,
            "told": answer.describe_laggards(),
        }

    def _counted(self, change: Change) -> dict[str, t.Any]:
        return self._counts.get(change.wish.key, {})

    def _describe(self, change: Change) -> str:
        """Of a document that too few members hold."""
        count = self._counted(change)
        what = "document %r version %s" % (clip(change.wish.key), change.version)
        if not count:
            return what + ": no time was left to ask who holds it"
        return "%s: %d of %d members %s it after %.1f s, expected %s. Missing: %s" % (
            what,
            count["confirmed"],
            count["members"],
            "have applied" if self._module.params["wait_for"] == "applied" else "hold",
            self._elapsed,
            self._wait,
            count["told"],
        )

    def _fail(self, problem: ClientError | str, conflicts: t.Sequence[Conflict] = ()) -> t.NoReturn:
        """End the module; what was written and what was not is told whatever happened."""
        results = self._results(predicted=False)
        results["written"] = [change.wish.key for change in self._changes if change.written]
        results["unwritten"] = [change.wish.key for change in self._changes if change.planned]
        results["uncertain"] = [change.wish.key for change in self._changes if change.uncertain]
        if conflicts:
            results["conflicts"] = [
                {"key": exc.key, "expected": exc.expected, "actual": exc.actual} for exc in conflicts
            ]
            if not self._many:
                results.update(expected=conflicts[0].expected, actual=conflicts[0].actual)
        self._module.fail(problem, **results)

    def _results(self, predicted: bool) -> dict[str, t.Any]:
        """What is returned; ``predicted`` counts what is planned as done."""
        shown = {change.wish.key: self._result_of(change, predicted) for change in self._changes}
        diffs = [
            change.diff(self._module.sensitive)
            for change in self._changes
            if not self._many or shown[change.wish.key]["changed"]
        ]
        results: dict[str, t.Any] = {"changed": any(result["changed"] for result in shown.values())}
        if self._many:
            counts = [result for result in shown.values() if result["confirmed"] is not None]
            results.update(
                documents=shown,
                atomic=self._atomic,
                members=max((count["members"] for count in counts), default=None),
                confirmed=min((count["confirmed"] for count in counts), default=None),
                laggards=[dict(late, key=count["key"]) for count in counts for late in count["laggards"]],
            )
        elif shown:
            results.update(next(iter(shown.values())))
        results["elapsed"] = round(self._elapsed, 3)
        if self._module._diff and diffs:
            results["diff"] = diffs if self._many else diffs[0]
        return results

    def _result_of(self, change: Change, predicted: bool) -> dict[str, t.Any]:
        count = self._counted(change)
        counted = {"members": count.get("members"), "confirmed": count.get("confirmed")}
        return dict(change.result(predicted), laggards=count.get("laggards", []), **counted)


def wait_of(params: dict[str, t.Any]) -> str:
    """How many members to wait for. Raises ``ConfigError``."""
    wait: str | None = params["wait"]
    if wait is None:
        return "all" if params["wait_for"] else "none"
    if check_wait(wait) == "none" and params["wait_for"] == "applied":
        raise ConfigError("wait_for=applied: expected majority, all or a number of members as wait, got 'none'")
    return wait


def main() -> None:
    spec = document_spec()
    spec["state"]["default"] = "present"
    module = FleetModule(
        argument_spec=dict(
            spec,
            key={"type": "str", "no_log": False},
            documents={"type": "dict", "no_log": False},
            atomic={"type": "str", "choices": ["auto", "required", "never"], "default": "auto"},
            rollback_to={"type": "str"},
            wait={"type": "str"},
            wait_for={"type": "str", "choices": ["held", "applied"]},
            wait_timeout={"type": "int", "default": 60},
            sensitive={"type": "bool", "default": False},
        ),
        mutually_exclusive=[SOURCES]
        + [("documents", name) for name in ("key", "if_version", "rollback_to") + SOURCES]
        + [("rollback_to", name) for name in ("content_type",) + SOURCES],
        required_if=[("state", "present", ("documents", "rollback_to") + SOURCES, True)],
        # The system log would keep whole documents, secret ones too.
        no_log=True,
    )
    try:
        wait_of(module.params)
        if module.params["rollback_to"] is not None and module.params["state"] == "absent":
            raise ConfigError("rollback_to: expected state=present with it")
        wishes = wishes_of(module.params)
        fleet = module.open_fleet()
    except ClientError as exc:
        module.fail(exc)
    Publication(module, wishes).run(fleet)


if __name__ == "__main__":
    main()
