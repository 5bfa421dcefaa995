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
  - Writes or deletes named documents of the fleet's metadata through a single member. Gossip carries the change to all
    other members.
  - The task contains one document (O(key)) or many documents (O(documents)). With many documents, the module checks all
    options, reads all documents and compares all O(if_version) conditions before it writes anything. With O(atomic),
    the module writes all documents or none in one request, and each member makes all documents of the request visible
    at the same moment.
  - If the document in the fleet already has the wanted content, the module writes nothing and does not check
    O(if_version). It is therefore safe to repeat a task that failed with an unknown outcome of the write.
requirements:
  - PyYAML on the target, only for O(value) with O(content_type=yaml)
extends_documentation_fragment:
  - xdp_gossip.fleet.connection
  - xdp_gossip.fleet.attributes
  - xdp_gossip.fleet.attributes.action_group
attributes:
  check_mode:
    details:
      - Predicts whether the document changes, its new digest, and whether O(if_version) fails. Check mode cannot
        predict the version of a new document, and does not wait.
options:
  key:
    description:
      - Name of the document, 1 to 512 bytes. Slashes divide the name of a document into segments. No segment may be
        empty, C(.) or C(..).
      - If neither O(key) nor O(documents) is given, the name is V(default).
    type: str
  documents:
    description:
      - Several documents to write or delete. Each key of O(documents) is the name of a document, as in O(key). Each
        value in O(documents) is a dictionary of the options C(content), C(value), C(src), C(remote_src),
        C(content_type), C(state), C(if_version), C(expires), C(author), C(comment) and C(sealed_for), which have the
        same meaning as the module's options of these names.
      - The module's options O(content_type), O(state), O(remote_src), O(expires), O(author), O(comment) and
        O(sealed_for) are the defaults for all entries of O(documents).
      - If O(documents) is an empty dictionary, the task changes nothing.
      - O(documents) cannot be combined with O(key), O(content), O(value), O(src), O(if_version) or O(rollback_to).
    type: dict
  atomic:
    description:
      - Whether to write all O(documents) in one request, so that either all or none are written.
      - With O(atomic=auto), the module writes the documents in one request if possible. If one request is not possible,
        the module shows a warning and writes the documents one by one in the given order. With O(atomic=required), the
        module fails before it writes anything if the documents cannot be written in one request. With O(atomic=never),
        the module always writes the documents one by one.
      - Documents cannot be written in one request if there are more than 64 documents, if their names have more than
        4096 bytes in total, or if they differ in C(author) or C(comment).
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
      - The value of O(content) must be text or a number. Before ansible-core 2.19, Ansible converts the result of a
        template to a list or a dictionary if the text looks like a list or a dictionary. The filter
        P(ansible.builtin.string#filter) at the end of the template prevents the conversion of the result to a list or a
        dictionary.
    type: raw
  value:
    description:
      - The document's content as text or as data, such as a dictionary or a list. The module publishes text in O(value)
        without conversion. Data in O(value) that is not text is converted to JSON, or to YAML with
        O(content_type=yaml). The module sorts the keys of the data, so equal data has an equal digest.
    type: raw
  src:
    description:
      - File whose bytes become the document's content. By default, O(src) is a file on the controller. With
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
      - Type of the content, for programs that read the document. If O(content_type) is given, the module also writes a
        document again if only its type differs.
      - The default of O(content_type) is V(json) for data in O(value). For O(content), O(src) and text in O(value), the
        default of O(content_type) is the type of the document's current version. For a new document, the agent derives
        the type from the suffix of the key, or of O(src) if the key has no known suffix. The agent knows the suffixes
        C(.json), C(.yaml), C(.yml) and C(.txt). A new document without a known suffix has the type V(raw).
      - The content type is V(raw), V(text), V(json), V(yaml), or any other name or media type, such as V(toml) and
        V(application/pdf). Members check only contents of type V(text), V(json) or V(yaml).
    type: str
  if_version:
    description:
      - Write only if the member that receives the request has the version O(if_version) of the document. With
        O(if_version=absent), the module writes only if the member does not have the document.
      - If the member does not have the version in O(if_version), the task fails. A task that fails because of
        O(if_version) returns the required version in RV(expected) and the actual version in RV(actual), or both
        versions in RV(conflicts).
      - Only the member that receives the request checks O(if_version). If two publishers write through different
        members at the same moment, both checks of O(if_version) may succeed. If both writes are accepted, all members
        use the same one of the two versions, and the other version stays in the history.
      - If two tasks write the same content, both tasks succeed, but only one task reports a change.
    type: str
  expires:
    description:
      - Lifetime of the document. The lifetime of a document is either V(never), or a number of seconds, or a number
        followed by V(s), V(m), V(h), V(d) or V(w), such as V(30m) or V(7d), at most ten years. When the lifetime ends,
        every member deletes the document.
      - If the content is unchanged, the module still writes the document again, and reports a change, if less than half
        of the lifetime or more than the whole lifetime is left. A task that runs regularly therefore renews the
        document before it expires. An immediate second run changes nothing.
      - If O(expires) is not given, an unchanged document keeps its expiry, and a document that the module writes never
        expires.
    type: str
  rollback_to:
    description:
      - Former version of the document to publish again. The module publishes the content and type of the former version
        again, as a new version.
      - The former version must be in the history of the member that receives the request. If the document already has
        the content and type of the former version, the module writes nothing.
      - The new version expires at the time at which the former version would have expired. If this time is in the past,
        the task fails, unless O(expires) is given.
      - O(rollback_to) cannot be combined with O(documents), O(content), O(value), O(src) or O(content_type).
    type: str
  sign_key:
    description:
      - OpenSSH key on the controller that signs the documents. The ansible-core process on the controller signs, and
        the key never leaves the controller. Documents whose name begins with a prefix in
        O(xdp_gossip.fleet.agent#role:main:xdp_gossip_agent_signers) need a signature; any other document may have one.
      - The file is a private key without a passphrase in OpenSSH's own format, of the type V(ssh-ed25519),
        V(sk-ssh-ed25519@openssh.com) or V(ecdsa-sha2-nistp256), V(ecdsa-sha2-nistp384), V(ecdsa-sha2-nistp521). With
        O(sign_with=agent), the file is the public key.
      - The module searches for the file on the controller like M(ansible.builtin.copy), and decrypts a file that
        Ansible Vault has encrypted.
      - The signature covers the name, content, type and expiry of each document, the comment and the cluster. All of
        them come from the task, so neither the target host nor a member can make the controller sign anything else. The
        member says only which documents of the task differ, and which versions each of them has had. If no document
        differs, the module makes no signature.
      - A document with the wanted content is written again, and the task reports a change, if another key or no key has
        signed the document.
      - If O(content_type) is not given, a text gets the type by the suffix of O(key), or else of O(src), or else
        V(raw), and never the type of the document's current version. If O(expires) is not given, a document that is
        written never expires.
      - O(sign_key) cannot be combined with O(rollback_to), O(remote_src=true), O(author), O(atomic=never) or C(async).
        All documents are signed together, so there can be at most 64 documents with 4096 bytes of names, and all have
        the same O(comment).
    type: path
  sign_with:
    description:
      - Where the private key is. With V(file), O(sign_key) is the private key. With V(agent), O(sign_key) is the public
        key, and the ssh-agent of the controller has the private key, such as that of a hardware key. The owner of a
        hardware key has to touch it within 60 seconds.
    type: str
    choices: [file, agent]
    default: file
  cluster:
    description:
      - Name of the cluster for which O(sign_key) signs and O(sealed_for) seals. A signature for one cluster is not
        valid in another cluster, and a document that was sealed for one cluster cannot be opened in another one. So the
        name comes from the controller and not from a member.
      - The default is the variable C(xdp_gossip_agent_cluster) of the host, if the variable is set and is not a fact.
    type: str
  sealed_for:
    description:
      - Hosts and groups of the inventory that may read the document, and fingerprints of public keys such as
        C(SHA256:9Jn6...). The ansible-core process on the controller encrypts the content for these hosts (HPKE, RFC
        9180). Every member stores the encrypted document; only these hosts can open it. Neither the target host nor a
        member gets the content in clear text.
      - The controller uses the public keys that the role P(xdp_gossip.fleet.agent#role) has collected over ssh. A host
        without such a key makes the task fail.
      - If the fleet has the same content, sealed by this controller for the same keys, nothing is written. The
        controller recognizes its own documents by a tag which only the key in O(sealing_dir) can compute, so a member
        cannot use the tag to guess the content.
      - Sealing hides the content, but does not prove who published it. Use O(sign_key), too, if only the owner of a key
        may change the document.
      - Names, sizes, recipients and times stay visible to every member. RV(digest) and RV(size) are those of the
        encrypted document.
      - If O(content_type) is not given, the type inside the sealed document is found as with O(sign_key). The
        controller checks that the content has this type.
      - An empty list in an entry of O(documents) exempts the entry from the task's O(sealed_for). Any other empty
        list is an error, because the content would be published in clear text.
      - O(sealed_for) cannot be combined with O(rollback_to), O(remote_src=true) or C(async).
    type: list
    elements: str
  seal_for_controller:
    description:
      - Whether the controller is a recipient, too, so that O(reseal) can seal the document again. The controller has
        seen the content anyway.
    type: bool
    default: true
  reseal:
    description:
      - Seal documents again for the present keys of their recipients, for example after a host was rebuilt. The task
        needs no content, because the controller opens the documents with its own key. Without O(key), the task seals
        all sealed documents of the fleet again that need it.
      - A recipient whose public key is not on the controller any more loses access. RV(dropped) lists such recipients.
      - The task fails if it finds documents that this controller has not sealed, or has not sealed for itself. It names
        them after it has sealed all others. Publish these from their source.
      - O(reseal) can be combined only with O(key), O(sealing_dir), O(cluster), O(sign_key), O(sign_with), O(comment),
        O(wait), O(wait_for), O(wait_timeout) and the connection options.
    type: bool
    default: false
  sealing_dir:
    description:
      - Directory on the controller with the public keys of the hosts and C(controller.key), the key of the controller.
        The first task with O(sealed_for) creates C(controller.key). Keep it with the other secrets of the fleet; the
        file may be encrypted by Ansible Vault.
      - The default is C(sealing) in the directory C(xdp_gossip_agent_secret_dir) if this variable is set, or else in
        C(~/.xdp-gossip/CLUSTER).
    type: path
  sealing:
    description:
      - What the controller asks the module on the target host because of O(sealed_for). The action plugin of this
        module sets O(sealing), and refuses a task that sets it.
    type: dict
  signing:
    description:
      - What the controller tells the module on the target host about O(sign_key). The action plugin of this module sets
        O(signing), and refuses a task that sets it.
    type: dict
  author:
    description:
      - Name that is put in front of the comment.
      - The author of a version is always the token, or the user of the Unix socket, that wrote the version.
    type: str
  comment:
    description: Reason for the change, stored with the version.
    type: str
  wait:
    description:
      - Number of members that must have each document before the task succeeds. O(wait) is V(none), V(majority),
        V(all), or a number of members.
      - V(all) means all present members. V(majority) means more than half of all known members that have not left, dead
        members included. So the smaller side of a partition never has a majority.
      - An isolated member, which no other member answers, refuses the write unless O(wait=none). The module then asks
        the next of O(endpoints). If all of O(endpoints) are isolated, the task fails at once with the error code
        V(isolated), and nothing is written.
      - The default of O(wait) is V(all) if O(wait_for) is given, and V(none) otherwise.
      - The task also waits if it changed nothing, so a second run also proves that the members have the documents.
      - After a deletion, the task counts a member if it has received the deletion and has no document of that name.
    type: str
  wait_for:
    description:
      - What a member must have done with the document before the task counts the member for O(wait). With
        O(wait_for=held), the task counts a member when the member has the document. With O(wait_for=applied), the task
        counts a member when the member's agent has also written the files that it renders from the document. A member
        that renders no file from the document only needs to have the document.
      - With O(wait_for=applied), the task fails as soon as every member that is not counted has refused to write files
        from the document. The error message contains each member's reason for the refusal.
      - After a deletion, O(wait_for=applied) has the same effect as O(wait_for=held). The default is V(held).
    type: str
    choices: [held, applied]
  wait_timeout:
    description:
      - Maximum seconds to wait until as many members as O(wait) requires have all documents. If members do not have the
        documents within O(wait_timeout) seconds, the task fails and names these members.
    type: int
    default: 60
  sensitive:
    description:
      - Whether to hide the documents' contents in the diff, in the module's reported arguments, and in errors. With
        O(sensitive), the module still shows names, sizes and digests. An attacker can guess a short content from its
        digest.
      - The module never writes to the system log of the target.
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

- name: Publish a document that only the owner of a key may change
  xdp_gossip.fleet.xdp_gossip_publish:
    key: app/limits
    value: {requests_per_second: 200}
    sign_key: ~/.ssh/release
    cluster: default

- name: Publish a key that only the web servers can read
  xdp_gossip.fleet.xdp_gossip_publish:
    key: web/tls.key
    src: tls.key
    sealed_for: [web_servers]
    cluster: default
    wait: all

- name: Seal all documents again after a host was rebuilt
  xdp_gossip.fleet.xdp_gossip_publish:
    reseal: true
    cluster: default

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
    - Version of the document. After a deletion, RV(version) is the version of the tombstone. RV(version) is V(null) if
      there was nothing to delete, and in check mode if the document would change.
  returned: without O(documents)
  type: str
  sample: 019a3c1e5b2f0000@198.18.0.11:8000
previous_version:
  description: Version of the document before the task; V(null) if there was no document.
  returned: without O(documents)
  type: str
  sample: 019a3c1e5a000000@198.18.0.12:8000
digest:
  description: SHA-256 of the content, as C(sha256sum) computes it; V(null) for O(state=absent).
  returned: without O(documents)
  type: str
  sample: sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
size:
  description: Size of the content in bytes.
  returned: without O(documents), and with O(state=present)
  type: int
  sample: 5
signed_by:
  description:
    - Who signed the version RV(version) of the document, as the member says. RV(signed_by) is V(null) if the version
      has no signature, and in check mode if the document would change.
  returned: without O(documents)
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
    - What everybody may know of the sealed document that the task publishes. RV(sealed) is V(null) without
      O(sealed_for).
  returned: without O(documents) and O(reseal)
  type: dict
  contains:
    content_type:
      description: Type of the content inside.
      type: str
      returned: always
    size:
      description: Size of the content inside, in bytes.
      type: int
      returned: always
    recipients:
      description: The recipients, each with C(name) and C(key), the fingerprint of the public key.
      type: list
      elements: dict
      returned: always
  sample: {"content_type": "text", "size": 5, "recipients": [{"name": "web1", "key": "SHA256:9Jn6"}]}
resealed:
  description: Names of the documents that were sealed again.
  returned: with O(reseal)
  type: list
  elements: str
  sample: [web/tls.key]
dropped:
  description: For each document that was sealed again, the names of former recipients that are none any more.
  returned: with O(reseal)
  type: dict
  sample: {}
not_resealed:
  description: For each document that needs to be published from its source, the reason.
  returned: with O(reseal)
  type: dict
  sample: {}
documents:
  description:
    - Dictionary of the results, with the names of the documents as keys. Each result has C(changed), and C(key),
      C(version), C(previous_version), C(digest), C(size), C(signed_by), C(sealed), C(members), C(confirmed) and
      C(laggards) as for a single document.
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
      signed_by: null
      members: 3
      confirmed: 3
      laggards: []
atomic:
  description: Whether all documents were written in one request; V(null) if fewer than two documents were written.
  returned: with O(documents)
  type: bool
  sample: true
members:
  description:
    - Number of present members. The module has checked all of them for the document. RV(members) is V(null) in check
      mode, and with O(documents) and O(wait=none).
  returned: once a member has answered
  type: int
  sample: 3
confirmed:
  description:
    - Number of members that have the document. With O(documents), the module counts these members for each document,
      and RV(confirmed) is the lowest of these numbers.
  returned: once a member has answered
  type: int
  sample: 3
known:
  description:
    - Number of known members that have not left, dead ones included. O(wait=majority) requires more than half of them.
      RV(known) is V(null) if RV(members) is V(null).
  returned: once a member has answered
  type: int
  sample: 3
dead:
  description: Number of known members that are dead.
  returned: once a member has answered
  type: int
  sample: 0
agent_down:
  description: Number of known members whose host answers although their agent does not run.
  returned: once a member has answered
  type: int
  sample: 0
laggards:
  description:
    - The members that do not have the document yet. With O(documents), each entry of RV(laggards) also has the C(key)
      of its document.
  returned: once a member has answered
  type: list
  elements: dict
  sample: []
elapsed:
  description: Seconds that the task waited for members.
  returned: once a member has answered
  type: float
  sample: 0.4
expected:
  description: The version that O(if_version) requires.
  returned: failure of O(if_version), without O(documents)
  type: str
  sample: 019a3c1e5a000000@198.18.0.12:8000
actual:
  description: The version that the document has; V(absent) if there is no document.
  returned: failure of O(if_version), without O(documents)
  type: str
  sample: 019a3c1e5b2f0000@198.18.0.11:8000
conflicts:
  description: The documents whose version differs from the version that their O(if_version) requires.
  returned: failure of O(if_version)
  type: list
  elements: dict
  contains:
    key:
      description: Name of the document.
      type: str
      returned: always
    expected:
      description: The version that O(if_version) requires.
      type: str
      returned: always
    actual:
      description: The version that the document has; V(absent) if there is no document.
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
  description: Names of the documents that the task should have written but has not written.
  returned: failure, once a member has answered
  type: list
  elements: str
  sample: [app/limits]
uncertain:
  description:
    - Names of the documents that may have been written, because the module sent them to a member and the member did not
      answer. Run the task again to find out whether the documents in RV(uncertain) were written.
  returned: failure, once a member has answered
  type: list
  elements: str
  sample: []
endpoint:
  description: Endpoint of the member that answered, or the first of O(endpoints) if no member answered.
  returned: unless options are wrong
  type: str
  sample: unix:///run/xdp-gossip/api.sock
failed_endpoints:
  description: Endpoints that did not answer, each with the reason.
  returned: unless options are wrong
  type: list
  elements: dict
  sample: [{"endpoint": "http://198.18.0.11:8001", "reason": "Connection refused"}]
error:
  description: The failure in a form that a playbook can test.
  returned: failure, when a member refused the request or none answered
  type: dict
  contains:
    code:
      description:
        - The agent's error code. The code is V(no_member_answered) if no member answered, and V(answer_lost) if the
          module sent a change and received no answer.
      type: str
      returned: always
    status:
      description: HTTP status of the answer; V(null) if there was no answer.
      type: int
      returned: always
    details:
      description: Further fields of the agent's error. With O(sensitive), RV(error.details) is empty.
      type: dict
      returned: always
  sample: {"code": "document_too_large", "status": 413, "details": {"limit": 16777216}}
"""

import base64
import time
import typing as t

from ansible_collections.xdp_gossip.fleet.plugins.module_utils._batch import (
    Conflicts,
    NotTogether,
    Outdated,
    conflicts_of,
    write_signed,
    write_together,
)
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._change import Change, Conflict
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._content import SOURCES
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._convergence import check_wait
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._fleet import Fleet, check_key
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._json import clip
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._module import FleetModule
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._sealed import SEALED
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._settings import ClientError, ConfigError
from ansible_collections.xdp_gossip.fleet.plugins.module_utils._wishes import Wish, document_spec, wishes_of

#: Maximum number of documents that the error message describes if too few members have the documents after
#: ``wait_timeout``.
_MOST_TOLD = 5


class Publication:
    """One run of the module. Collects the results that the module reports when it ends or fails."""

    def __init__(self, module: FleetModule, wishes: list[Wish]) -> None:
        self._module = module
        self._wishes = wishes
        self._many: bool = module.params["documents"] is not None
        self._changes: list[Change] = []
        self._counts: dict[str, dict[str, t.Any]] = {}
        self._elapsed = 0.0
        self._atomic: bool | None = None
        self._wait = wait_of(module.params)
        self._signing: dict[str, t.Any] | None = module.params["signing"]

    def run(self, fleet: Fleet) -> t.NoReturn:
        """Read all documents, check ``if_version``, write, wait for members, and end the module."""
        fleet.unless_isolated = self._wait != "none"
        try:
            self._changes = [Change(wish, fleet) for wish in self._wishes]
            self._compare()
            if not self._module.check_mode:
                self._plan()
                self._write(fleet)
                self._confirm(fleet)
        except Conflict as exc:
            self._fail(str(exc), [exc])
        except Conflicts as exc:
            self._fail(str(exc), exc.conflicts)
        except Outdated as exc:
            self._fail(exc, error={"code": "signature_outdated", "status": None, "details": {}})
        except ClientError as exc:
            self._fail(exc)
        self._module.succeed(**self._results(predicted=True))

    def _plan(self) -> None:
        """End the module if the controller has to sign documents first, and tell it the versions of these documents."""
        planned = {change.wish.key: change.lineage for change in self._changes if change.planned}
        if planned and self._signing is not None and "signature" not in self._signing:
            self._module.succeed(lineages=planned, **self._results(predicted=True))

    def _compare(self) -> None:
        conflicts = conflicts_of(self._changes)
        if conflicts:
            self._fail("; ".join(str(exc) for exc in conflicts), conflicts)

    def _write(self, fleet: Fleet) -> None:
        """Write the planned changes. Write all documents with one request if ``atomic`` allows one request and the
        member supports it. If one request is not possible, write each document with its own request.
        """
        if self._signing is not None:
            if "signature" in self._signing:
                write_signed(fleet, self._changes, self._signing)
                self._atomic = True if len(self._signing["documents"]) > 1 else None
            return
        planned = [change for change in self._changes if change.planned]
        if len(planned) > 1 and self._module.params["atomic"] != "never":
            try:
                write_together(fleet, self._changes)
                self._atomic = True
                return
            except NotTogether as exc:
                if self._module.params["atomic"] == "required":
                    self._fail("nothing was written, because the documents cannot be written together: %s" % exc)
                self._module.warn("The documents are written one after the other, not all or nothing: %s" % exc)
        self._atomic = False if len(planned) > 1 else None
        for change in planned:
            change.apply()

    def _confirm(self, fleet: Fleet) -> None:
        """Count the members that have each document. Fail if fewer members have a document than ``wait`` requires."""
        wait = self._wait
        if wait == "none":
            if not self._many:
                self._count_once(fleet)
            return
        started = time.monotonic()
        end = started + self._module.params["wait_timeout"]
        # After ``wait_timeout``, count the members once for each document whose members were not counted before. Start
        # no count later than ``timeout`` seconds after the end of ``wait_timeout``.
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
            **answer.counts(),
            "laggards": answer.laggards,
            "converged": answer.converged,
            "absent": answer.describe_absent(),
            "told": answer.describe_laggards(),
        }

    def _counted(self, change: Change) -> dict[str, t.Any]:
        return self._counts.get(change.wish.key, {})

    def _describe(self, change: Change) -> str:
        """Return the error message about ``change`` if too few members have its document."""
        count = self._counted(change)
        what = "document %r version %s" % (clip(change.wish.key), change.version)
        if not count:
            return what + ": no time was left to ask who holds it"
        return "%s: %d of %d members %s it after %.1f s, expected %s.%s Missing: %s" % (
            what,
            count["confirmed"],
            count["members"],
            "have applied" if self._module.params["wait_for"] == "applied" else "hold",
            self._elapsed,
            self._wait,
            count["absent"],
            count["told"],
        )

    def _fail(self, problem: ClientError | str, conflicts: t.Sequence[Conflict] = (), **about: t.Any) -> t.NoReturn:
        """End the module with a failure, and report which documents were written and which were not."""
        results = dict(self._results(predicted=False), **about)
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
        """Return the module's results. With ``predicted`` (check mode), the results describe planned changes as if the
        module had already made these changes.
        """
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
                **{
                    name: max((count[name] for count in counts), default=None)
                    for name in ("known", "dead", "agent_down")
                },
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
        counted = {name: count.get(name) for name in ("members", "confirmed", "known", "dead", "agent_down")}
        return dict(change.result(predicted), laggards=count.get("laggards", []), **counted)


def wait_of(params: dict[str, t.Any]) -> str:
    """Return the effective value of ``wait``. Raises ``ConfigError``."""
    wait: str | None = params["wait"]
    if wait is None:
        return "all" if params["wait_for"] else "none"
    if check_wait(wait) == "none" and params["wait_for"] == "applied":
        raise ConfigError("wait_for=applied: expected majority, all or a number of members as wait, got 'none'")
    return wait


def read_envelopes(module: FleetModule) -> t.NoReturn:
    """End the module with the sealed documents that the controller asks for: those in ``read``, or else all.

    Raises ``ClientError``.
    """
    fleet = module.open_fleet()
    wanted = module.params["sealing"].get("read")
    if wanted is None:
        wanted = [one["key"] for one in fleet.documents()["documents"] if one["content_type"] == SEALED]
    found = {}
    for key in wanted:
        held = fleet.read(check_key(str(key)))
        if held is not None and held[0]["content_type"] == SEALED:
            value = base64.b64encode(held[1]).decode("ascii")
            found[key] = {"value": value, "version": held[0]["version"], "expires": held[0]["expires"]}
    module.succeed(changed=False, envelopes=found)


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
            sign_key={"type": "path", "no_log": False},
            sign_with={"type": "str", "choices": ["file", "agent"], "default": "file"},
            cluster={"type": "str"},
            # The fingerprint of the controller's key and, once it has signed, the time of the signature, the signature,
            # and the documents that it covers.
            signing={"type": "dict"},
            seal_for_controller={"type": "bool", "default": True},
            reseal={"type": "bool", "default": False},
            sealing_dir={"type": "path"},
            sealing={"type": "dict"},
        ),
        mutually_exclusive=[SOURCES]
        + [("documents", name) for name in ("key", "if_version", "rollback_to") + SOURCES]
        + [("rollback_to", name) for name in ("content_type",) + SOURCES],
        required_if=[("state", "present", ("documents", "rollback_to", "reseal") + SOURCES, True)],
        # Without no_log, Ansible would write the contents of documents to the system log, including secrets.
        no_log=True,
    )
    try:
        wait_of(module.params)
        if module.params["rollback_to"] is not None and module.params["state"] == "absent":
            raise ConfigError("rollback_to: expected state=present with it")
        if module.params["sign_key"] is not None:
            raise ConfigError("sign_key: expected the action plugin of this module to sign on the controller")
        if module.params["sealing"] is not None:
            read_envelopes(module)
        if module.params["reseal"]:
            raise ConfigError("reseal: expected the action plugin of this module to open and seal on the controller")
        wishes = wishes_of(module.params)
        if any(wish.sealed_for for wish in wishes):
            raise ConfigError("sealed_for: expected the action plugin of this module to seal on the controller")
        for wish in wishes:
            wish.signer = (module.params["signing"] or {}).get("key")
        fleet = module.open_fleet()
    except ClientError as exc:
        module.fail(exc)
    Publication(module, wishes).run(fleet)


if __name__ == "__main__":
    main()
