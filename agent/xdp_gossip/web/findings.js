// SPDX-License-Identifier: MIT
// The problems that this member knows of: of the nodes, of itself, and of all rendered files. Each finding has a
// remedy.

import { address, bytes, clock, duration, plural } from "./format.js";
import { zonesOf } from "./zones.js";

// Milliseconds for which a node's documents may differ without a finding, because a publish takes time to spread.
const BEHIND = 30_000;
const NEARLY_FULL = 0.8;
// Number of lost zones that are named.
const NAMED = 8;

// Problems of nodes (docs/protocol.md), worst first: severity, explanation, remedy.
const PROBLEMS = {
  twin: ["bad", "Two hosts use the same address and port", "Stop one of the agents, or give it a node.addr of its own."],
  clock: ["bad", "The clock is more than half of max_clock_drift from the cluster's", "On that host: timedatectl set-ntp true"],
  unreached: ["warn", "Heard, but cannot be reached at the address that it tells",
    "Open its port (udp and tcp) in firewalls, forward it behind NAT, or correct node.addr."],
  no_common_family: ["warn", "No address family in common with this member", "Give both a node.addr of one family."],
  short_datagrams: ["warn", "The path there loses long datagrams", "Let ICMP through: a tunnel or a firewall on the way hides its MTU."],
  same_name: ["warn", "Several nodes have the same name", "Set node.name (role: xdp_gossip_agent_name) of one, then reload its agent."],
};

// Counters that should not grow: explanation, and remedy if they do.
const COUNTERS = {
  rx_bad_mac: ["packets with a wrong signature", "Compare the secrets of all hosts."],
  rx_unknown_key: ["packets signed with a key that is unknown here", "Add the key as staged on every host before any uses it."],
  rx_wrong_key: ["packets made with another secret", "Compare the secrets of all hosts."],
  rx_foreign_cluster: ["packets of another cluster", "Compare cluster: of all hosts."],
  rx_stale_time: ["packets from too far in the past or the future", "Look at the clocks: timedatectl"],
  rx_bad_address: ["nodes told at an address that no other host can have", "Correct their node.addr."],
  datagrams_dropped_kernel: ["datagrams lost in the socket buffer", "Raise net.core.rmem_max on this host."],
  api_unauthorized: ["requests with a token that is not this agent's", "journalctl -u xdp-gossip says whose."],
  documents_refused_too_large: ["documents refused as too large", "Give limits.document the same value on every host."],
  documents_refused_too_many: ["documents refused as too many", "Give limits.documents the same value on every host."],
  documents_refused_unsigned: ["documents refused without the signature that they need", "The log names each document and the member that sent it."],
  documents_refused_signature: ["documents refused because of a wrong signature", "The log names the member that sent them: look at that host."],
  documents_refused_store_full: ["documents refused for lack of room", "Give limits.store the same value on every host."],
};

const FILES = {
  failed: ["bad", "rendered file", "failed", "On its host: journalctl -u xdp-gossip-files. The former file is in place until a change is accepted."],
  drifted: ["warn", "rendered file", "changed by hand", "Change the document or the template instead; systemctl reload xdp-gossip puts the file right."],
  pending: ["warn", "rendered file", "waiting for more than a minute", "Publish what it waits for, or give the template a default."],
};

const UNREAD = { nodes: "The list of nodes", documents: "The list of documents", status: "The status of this member", files: "The files of the fleet" };

const present = (node) => node.state === "alive" || node.state === "suspect";
const each = (number, one, many) => (number === 1 ? one : many);

function* ofNodes(store) {
  const nodes = [...store.nodes.values()];
  const lost = zonesOf(nodes).filter((zone) => zone.lost);
  if (lost.length) {
    const named = lost.slice(0, NAMED).map((zone) => `${zone.name} (${plural(zone.all, "node")})`).join(", ");
    yield { id: "zones", kind: "bad", title: `${plural(lost.length, "zone")} lost`, show: lost.length === 1 ? `zone/${encodeURIComponent(lost[0].name)}` : "",
      about: `No node is present in ${named}${lost.length > NAMED ? ` and ${plural(lost.length - NAMED, "more zone")}` : ""}.`,
      todo: "Look at the network between the zones, then at the power of the zone." };
  }
  // The nodes of a lost zone are one problem, not one for each node.
  const told = new Set(lost.filter((zone) => zone.all > 1).map((zone) => zone.name));
  const others = nodes.filter((node) => !told.has(node.zone ?? ""));
  const dead = others.filter((node) => node.state === "dead");
  if (dead.length) {
    yield { id: "dead", kind: "bad", title: `${plural(dead.length, "node")} dead`, who: dead, show: "dead",
      todo: "Look at the host, then at its agent: systemctl status xdp-gossip. Nothing, if it was taken down for good." };
  }
  const down = others.filter((node) => node.state === "agent_down");
  if (down.length) {
    yield { id: "agent_down", kind: "bad", title: `${plural(down.length, "node")} without a running agent`, who: down, show: "agent_down",
      todo: `The ${each(down.length, "host answers", "hosts answer")}, so log in: systemctl status xdp-gossip` };
  }
  for (const [problem, [kind, title, todo]] of Object.entries(PROBLEMS)) {
    const who = nodes.filter((node) => node.problems?.includes(problem));
    if (who.length) yield { id: problem, kind, title, who, show: "problems", todo };
  }
  const suspect = nodes.filter((node) => node.state === "suspect");
  if (suspect.length) {
    yield { id: "suspect", kind: "warn", title: `${plural(suspect.length, "node")} suspect`, who: suspect, show: "suspect",
      todo: `Wait: without a sign of life ${each(suspect.length, "it is", "they are")} dead soon. Look at the network to the host.` };
  }
  const behind = nodes.filter((node) => present(node) && store.behindFor(node) >= BEHIND);
  if (behind.length) {
    yield { id: "behind", kind: "warn", title: `${plural(behind.length, "node")} with other documents for more than ${BEHIND / 1000} s`,
      who: behind, show: "behind", todo: "POST /v1/repair here makes them sync at once; then look at their limits and disks." };
  }
  const versions = new Map();
  for (const node of nodes.filter((one) => present(one) && one.version)) {
    versions.set(node.version, [...(versions.get(node.version) ?? []), node]);
  }
  if (versions.size > 1) {
    const most = [...versions.values()].sort((a, b) => b.length - a.length);
    yield { id: "versions", kind: "warn", title: `${versions.size} versions of the agent run`,
      about: most.map((some) => `${some[0].version} on ${plural(some.length, "node")}`).join(", "), who: most.slice(1).flat(),
      todo: "Finish the upgrade: the same release on every host." };
  }
}

// Yields findings about data that is missing, so that its absence is not taken for health.
function* ofThePage(store) {
  if (store.lost) {
    yield { id: "lost", kind: "bad", title: "No connection to this member", about: store.heard ? `What is shown is from ${clock(store.heard)}.` : "",
      todo: "Look at its agent: systemctl status xdp-gossip. Or open the page of another member." };
    return;
  }
  for (const [what, why] of Object.entries(store.problems)) {
    yield { id: `unread ${what}`, kind: "bad", title: `${UNREAD[what] ?? what} cannot be read`, about: why, todo: "On the host of this member: xdp-gossip doctor" };
  }
}

function* ofThisMember(store) {
  const { status } = store;
  if (status.missed_rotation) {
    yield { id: "missed rotation", kind: "bad", title: "This member may have missed a rotation of the keys",
      about: "The packets that it hears are signed with keys that it does not have.",
      todo: "Deploy to its host again, or give it the keys of the other members and reload its agent." };
  }
  if (status.isolated) {
    yield { id: "isolated", kind: "bad", title: "This member is isolated: no other member answers it",
      about: "The states of the other nodes may be wrong. It confirms no document, and its rendered files stay as they are.",
      todo: "Look at the network of its host: ip addr, ip route, firewalls. Or open the page of another member." };
  }
  if (status.storage_error) {
    yield { id: "storage", kind: "bad", title: "The disk of this member cannot be written", about: status.storage_error,
      todo: "Make room, or repair the disk; the agent tries again by itself. Publish through another member meanwhile." };
  }
  if (status.state !== "running") {
    yield { id: "state", kind: "bad", title: `This member is ${status.state}: the others do not see it`, todo: "xdp-gossip node start" };
  }
  if (status.waiting) {
    yield { id: "waiting", kind: "warn", title: "This member waits for an address", about: status.waiting,
      todo: "Give the address to an interface, or name another one in agent.yml." };
  }
  if (status.catching_up) {
    yield { id: "catching_up", kind: "warn", title: "This member does not know yet what the cluster knows", about: status.catching_up,
      todo: "Wait; its rendered files wait, too. If it goes on: is another member reached?" };
  }
  const offset = status.clock_offset;
  if (Math.abs(offset) > store.clockLimit && !status.node.problems?.includes("clock")) {
    yield { id: "clock_offset", kind: "warn", title: `The clock of this member is ${duration(Math.abs(offset))} ${offset > 0 ? "behind" : "ahead of"} the cluster's`,
      todo: "On this host: timedatectl set-ntp true" };
  }
  if (status.document_bytes >= NEARLY_FULL * status.document_bytes_limit) {
    yield { id: "nearly_full", kind: "warn", title: "The documents nearly fill their room",
      about: `${bytes(status.document_bytes)} of ${bytes(status.document_bytes_limit)} (limits.store)`,
      todo: "Delete some, or raise limits.store on every host." };
  }
  for (const text of status.state_problems ?? []) {
    yield { id: `state_problem ${text}`, kind: "warn", title: "The state file of this member was damaged", about: text,
      todo: "Nothing, if other members hold what was lost. Look at the disk." };
  }
  for (const error of status.internal_errors) {
    yield { id: `internal ${error.place}`, kind: "warn", title: `Internal error in ${error.task} (${plural(error.count, "time")} since the start)`,
      about: `${error.place}: ${error.error}`, todo: "Report it with the lines of: journalctl -u xdp-gossip" };
  }
  for (const [name, [what, todo]] of Object.entries(COUNTERS)) {
    const by = store.grown(name);
    if (by) yield { id: name, kind: "warn", title: `This member counts ${what}`, about: `${name}: ${by} in the last minutes`, todo };
  }
}

function* ofFiles(store) {
  const { files, silent } = store.files;
  for (const [state, [kind, one, word, todo]] of Object.entries(FILES)) {
    const some = files.filter((file) => file.state === state);
    if (!some.length) continue;
    yield { id: `files ${state}`, kind, title: `${plural(some.length, one)} ${word}`, todo, view: "files",
      who: some.map((file) => ({ ...file, why: `${file.path}: ${file.error}` })) };
  }
  const alive = silent.filter((one) => store.nodes?.get(address(one))?.state === "alive");
  if (alive.length) {
    yield { id: "silent", kind: "warn", title: `${plural(alive.length, "node")} did not tell about rendered files`, who: alive,
      todo: "An older agent does not know the question: upgrade it." };
  }
}

// All known problems, worst first: { id, kind, title, about, todo, who, show, view }.
export function findings(store) {
  const found = [
    ...ofThePage(store),
    ...(store.status ? ofThisMember(store) : []),
    ...(store.nodes ? ofNodes(store) : []),
    ...(store.files ? ofFiles(store) : []),
  ];
  return [...found.filter((one) => one.kind === "bad"), ...found.filter((one) => one.kind !== "bad")];
}

// The names of the counters in COUNTERS.
export const WATCHED = Object.keys(COUNTERS);
