// SPDX-License-Identifier: MIT
// The view of the fleet: its nodes with state and mode, and which of them hold the same documents as this member.

import { copyButton } from "./copy.js";
import { h, note, remote, state } from "./dom.js";
import { address, collator, count, duration } from "./format.js";
import { Table } from "./table.js";
import { Zones, zonesOf } from "./zones.js";

const KINDS = { alive: "ok", suspect: "warn", agent_down: "bad", dead: "bad", left: "off" };
const RANK = { dead: 0, agent_down: 1, suspect: 2, alive: 3, left: 4 };
const PROBLEMS = {
  twin: "address used twice", same_name: "name used twice", short_datagrams: "long datagrams are lost", unreached: "not reached",
  no_common_family: "no common address family", clock: "clock is wrong",
};
// Texts of states and of groups of nodes, where they differ from the name.
const WORDS = { agent_down: "agent down", behind: "out of sync", problems: "with problems" };
// Sort order: nodes with problems come first.
const rank = (node) => RANK[node.state] * 2 - (node.problems?.length ? 1 : 0);
const present = (node) => node.state === "alive" || node.state === "suspect";
// What the address of the page names: a zone behind this prefix, or a group of nodes.
const IN_ZONE = "zone/";

export function name(node) {
  if (node.name) return remote(node.name, { class: "name" });
  return h("span", { class: "muted" }, node.record_known === false ? "not heard yet" : "no name");
}

export class Fleet {
  constructor(store, trouble) {
    this.store = store;
    this.trouble = trouble;
    this.title = "Fleet";
    this.only = null;
    this.zones = new Zones(() => (this.only?.startsWith(IN_ZONE) ? this.only.slice(IN_ZONE.length) : null),
      (zone) => { location.hash = zone === null ? "#/fleet" : `#/fleet/${IN_ZONE}${encodeURIComponent(zone)}`; });
    const synced = (node) => (present(node) ? (node.digest === store.digest ? "yes" : "no") : "–");
    this.inSync = synced;
    this.chips = h("div", { class: "chips", role: "group", "aria-label": "Show only" });
    this.local = h("p", { class: "muted line" });
    this.table = new Table({
      label: "Nodes",
      noun: "node",
      key: address,
      sort: "state",
      search: (node) => `${node.name} ${address(node)} ${node.zone ?? ""} ${node.state} ${node.protocol} ${node.version} ${node.private_data}`,
      extra: this.chips,
      empty: () => note("", "No node is known."),
      columns: [
        { id: "name", title: "Name", kind: "main", value: (node) => `${node.name}\0${node.private_data}\0${node.local}\0${node.record_known}`,
          order: (a, b) => collator.compare(a.name, b.name), cell: (node) => this.nameCell(node) },
        { id: "address", title: "Address", kind: "mono", value: address,
          cell: (node) => h("div", { class: "at" }, address(node), copyButton("address", address(node))) },
        { id: "zone", title: "Zone", kind: "zoned", value: (node) => node.zone ?? "", when: (nodes) => nodes.some((node) => node.zone),
          cell: (node) => (node.zone ? remote(node.zone, null, 64) : "–") },
        { id: "state", title: "State", value: (node) => [node.state, ...(node.problems ?? [])].join(" "),
          order: (a, b) => rank(a) - rank(b) || collator.compare(a.name, b.name), cell: (node) => this.stateCell(node) },
        { id: "mode", title: "Mode", value: (node) => node.protocol, cell: (node) => remote(node.protocol || "–") },
        { id: "agent", title: "Agent", value: (node) => node.version, cell: (node) => remote(node.version || "–") },
        { id: "heard", title: "Last heard", kind: "number", value: (node) => (node.local ? "here" : duration(store.age(node))),
          order: (a, b) => store.age(a) - store.age(b) },
        { id: "sync", title: "In sync", value: synced,
          cell: (node) => (present(node) ? state(synced(node), synced(node) === "yes" ? "ok" : "warn") : "–") },
      ],
    });
    this.element = h("section", { "aria-label": "Fleet" }, h("h1", null, "Fleet"), trouble.element, this.local, this.zones.element,
      this.table.element);
  }

  stateCell(node) {
    return h("div", { class: "stack" }, state(WORDS[node.state] ?? node.state, KINDS[node.state] ?? "off"),
      (node.problems ?? []).map((one) => state(PROBLEMS[one] ?? one, "warn")));
  }

  // Shows only the nodes in the group `word`, or of the zone that `word` names; "" shows all.
  choose(word) {
    const found = word.startsWith(IN_ZONE) ? { accept: (node) => (node.zone ?? "") === word.slice(IN_ZONE.length) }
      : this.wanted([]).find((one) => one.id === word);
    this.only = found ? word : null;
    this.table.restrict(found ? found.accept : () => true);
    if (this.store.nodes) this.draw();
    if (!found || !this.element.isConnected) return;
    const place = word.startsWith(IN_ZONE) ? this.zones : null;
    (place?.element ?? this.table.tools).scrollIntoView();
    (place?.list ?? this.chips).querySelector("[aria-pressed=true]")?.focus({ preventScroll: true });
  }

  nameCell(node) {
    const data = node.private_data && remote(node.private_data, { class: "muted sub" }, 160);
    return h("div", { class: "stack" }, h("span", null, name(node), node.local && h("span", { class: "tag" }, "this member")), data);
  }

  show() {
    this.clock = setInterval(() => this.draw(), 1000);
    this.draw();
  }

  hide() {
    clearInterval(this.clock);
  }

  update(topics) {
    if (topics.has("nodes") || topics.has("status") || topics.has("documents")) this.draw();
  }

  draw() {
    const { store } = this;
    if (!store.nodes) {
      this.table.message.hidden = false;
      this.table.message.replaceChildren(store.problems.nodes
        ? note("bad", "The list of nodes cannot be read.", store.problems.nodes) : h("p", { class: "loading" }, "Loading …"));
      return;
    }
    const nodes = [...store.nodes.values()];
    this.drawChips(nodes);
    this.zones.draw(zonesOf(nodes));
    this.table.update(nodes);
    const { status } = store;
    if (status) {
      const reason = status.mode_reason && [" (", remote(status.mode_reason), ")"];
      const zone = status.node.zone ? ["zone ", remote(status.node.zone, null, 64), ", "] : [];
      this.local.replaceChildren("As seen by ", name(status.node), ": ", ...zone, "mode ", remote(status.mode), ...(reason || []),
        `, cycle ${duration(status.cycle)}, timeout ${duration(status.timeout)}`);
    }
  }

  wanted(nodes) {
    const kinds = { ...KINDS, behind: "warn", problems: "warn" };
    const accepts = {
      behind: (node) => this.inSync(node) === "no",
      problems: (node) => Boolean(node.problems?.length),
    };
    return [...Object.keys(KINDS), "behind", "problems"].map((id) => {
      const accept = accepts[id] ?? ((node) => node.state === id);
      return { id, accept, kind: kinds[id], number: nodes.filter(accept).length,
        word: WORDS[id] ?? id };
    });
  }

  drawChips(nodes) {
    const wanted = this.wanted(nodes);
    const text = JSON.stringify([wanted.map((one) => one.number), this.only]);
    if (text === this.drawn) return;
    this.drawn = text;
    const focused = [...this.chips.children].indexOf(document.activeElement);
    this.chips.replaceChildren(...wanted.map(({ id, word, number, kind }) => h("button", {
      type: "button", class: "chip", "aria-pressed": String(this.only === id),
      click: () => { location.hash = this.only === id ? "#/fleet" : `#/fleet/${id}`; },
    }, state(`${count(number)} ${word}`, number ? kind : "off"))));
    if (focused >= 0) this.chips.children[focused].focus();
  }
}
