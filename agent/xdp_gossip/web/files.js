// SPDX-License-Identifier: MIT
// The view of rendered files: those with problems on all members, and all of this member with the documents they were
// made from.

import { copyButton } from "./copy.js";
import { documentLink, version } from "./documents.js";
import { exact, h, note, remote, state } from "./dom.js";
import { name } from "./fleet.js";
import { address, collator, count, plural } from "./format.js";
import { Table } from "./table.js";
import { time } from "./tree.js";

const KINDS = { applied: "ok", pending: "warn", drifted: "warn", failed: "bad" };
const RANK = { failed: 0, drifted: 1, pending: 2, applied: 3 };

/** The error of a rendered file, with the command's output if it may be shown. */
function told(one) {
  return [one.error, one.output].filter(Boolean).join(": ");
}

export class Files {
  constructor(store) {
    this.store = store;
    this.title = "Files";
    this.problem = h("div");
    this.fleetTold = h("p", { class: "muted line" }, "Loading …");
    this.fleet = new Table({
      label: "Files in trouble",
      noun: "file",
      key: (one) => `${address(one)} ${one.template}`,
      sort: "state",
      search: (one) => `${one.name} ${address(one)} ${one.template} ${one.path} ${one.state} ${one.error}`,
      empty: () => note("ok", "No file is failed, changed by hand, or waiting for long."),
      columns: [
        { id: "member", title: "Member", kind: "main", value: (one) => `${one.name}\0${address(one)}`, order: (a, b) => collator.compare(a.name, b.name),
          cell: (one) => h("div", { class: "stack" }, name(one), h("span", { class: "sub mono at" }, address(one), copyButton("address", address(one)))) },
        { id: "path", title: "File", kind: "mono", value: (one) => `${one.path}\0${one.template}`,
          cell: (one) => h("div", { class: "stack" }, remote(one.path), h("span", { class: "sub" }, "template ", remote(one.template))) },
        { id: "state", title: "State", value: (one) => one.state,
          order: (a, b) => RANK[a.state] - RANK[b.state] || collator.compare(a.name, b.name), cell: (one) => state(one.state, KINDS[one.state] ?? "off") },
        { id: "since", title: "Since", kind: "time", value: (one) => one.since, cell: (one) => time(one.since) },
        { id: "error", title: "Reason", kind: "wide", value: (one) => one.error, cell: (one) => remote(one.error || "–") },
      ],
    });
    this.table = new Table({
      label: "Rendered files",
      noun: "file",
      key: (one) => one.name,
      sort: "name",
      search: (one) => `${one.name} ${one.path} ${one.state} ${told(one)} ${Object.keys(one.documents).join(" ")}`,
      empty: () => note("", "This member renders no files.", "They are set up as templates: in its agent.yml."),
      columns: [
        { id: "name", title: "Template", kind: "main", value: (one) => one.name, cell: (one) => remote(one.name) },
        { id: "path", title: "File", kind: "mono", value: (one) => one.path, cell: (one) => remote(one.path) },
        { id: "state", title: "State", kind: "wide", value: (one) => `${one.state} ${one.drift} ${told(one)}`,
          order: (a, b) => RANK[a.state] - RANK[b.state] || collator.compare(a.name, b.name),
          cell: (one) => h("div", { class: "stack" }, state(one.state, KINDS[one.state] ?? "off"), one.drift && state("changed by hand", "warn"), told(one) && remote(told(one), { class: "sub" }, 600)) },
        { id: "documents", title: "Documents", value: (one) => JSON.stringify([one.documents, Object.keys(one.documents).map((key) => this.newer(key, one.documents[key]))]),
          cell: (one) => this.documents(one.documents) },
        { id: "changed", title: "File changed", kind: "time", value: (one) => one.changed ?? "",
          cell: (one) => (one.changed ? time(one.changed) : "never") },
        { id: "since", title: "State since", kind: "time", value: (one) => one.since ?? "",
          cell: (one) => (one.since ? time(one.since) : "–") },
      ],
    });
    this.element = h("section", { "aria-label": "Files" }, h("h1", null, "Rendered files"), this.problem,
      h("section", { "aria-label": "In trouble, in the whole fleet" }, h("h2", null, "In trouble, in the whole fleet"), this.fleetTold, this.fleet.element),
      h("section", { "aria-label": "On this member" }, h("h2", null, "On this member"), this.table.element));
    this.fleet.element.hidden = this.table.element.hidden = true;
  }

  newer(key, used) {
    const held = this.store.documents?.get(key);
    return Boolean(held && used && held.version !== used);
  }

  documents(used) {
    const keys = Object.keys(used).sort(collator.compare);
    if (!keys.length) return "–";
    return h("ul", { class: "plain" }, keys.slice(0, 20).map((key) => h("li", null,
      h("a", { class: "mono", href: documentLink(key) }, exact(key)), " ",
      used[key] ? version(used[key]) : h("span", { class: "muted" }, "missing"), " ",
      this.newer(key, used[key]) && state("newer held", "warn"))),
    keys.length > 20 && h("li", { class: "muted" }, `and ${keys.length - 20} more`));
  }

  show() {
    this.store.loadFiles();
    this.draw();
  }

  hide() {}

  update(topics) {
    if (topics.has("files") || topics.has("documents")) this.draw();
  }

  draw() {
    const { files, own, problems } = this.store;
    const told = problems.files ?? "";
    if (this.problem.dataset.told !== told) {
      this.problem.dataset.told = told;
      this.problem.replaceChildren(told ? note("bad", "The files cannot be listed.", told) : "");
    }
    if (own) this.table.update(own);
    this.table.element.hidden = !own;
    this.fleet.element.hidden = !files;
    if (!files) return;
    this.fleet.update(files.files);
    const members = new Set(files.files.map(address)).size;
    const parts = [files.alone ? files.alone
      : `${plural(files.files.length + files.untold, "file")} on ${count(members)} of ${plural(files.members, "member")}; ${plural(files.templates, "file")} in all.`];
    if (files.untold) parts.push(`${plural(files.untold, "more file")} did not fit into the answers of their members.`);
    if (files.silent.length) {
      const names = files.silent.slice(0, 5).map((one) => one.name || address(one)).join(", ");
      parts.push(`No answer from ${plural(files.silent.length, "member")}: ${names}${files.silent.length > 5 ? ", …" : ""}.`);
    }
    this.fleetTold.replaceChildren(remote(parts.join(" "), null, 2000));
  }
}
