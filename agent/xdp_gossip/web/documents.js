// SPDX-License-Identifier: MIT
// The documents that this member holds.

import { h, note, remote } from "./dom.js";
import { bytes, collator, moment } from "./format.js";
import { Table } from "./table.js";

export const documentLink = (key) => `#/documents/${encodeURIComponent(key)}`;

export function version(text) {
  const [stamp, ...origin] = String(text).split("@");
  return h("span", { class: "version", title: String(text) }, stamp, h("span", { class: "muted" }, `@${origin.join("@")}`));
}

export class Documents {
  constructor(store) {
    this.store = store;
    this.title = "Documents";
    this.table = new Table({
      label: "Documents",
      key: (one) => one.key,
      sort: "key",
      search: (one) => `${one.key} ${one.version} ${one.author} ${one.comment} ${one.content_type}`,
      empty: () => note("", "There are no documents yet.", "Publish one with: xdp-gossip publish KEY --file FILE"),
      columns: [
        { id: "key", title: "Key", kind: "main mono", value: (one) => one.key,
          cell: (one) => h("a", { href: documentLink(one.key) }, remote(one.key)) },
        { id: "time", title: "Published", kind: "time", value: (one) => one.published_at,
          order: (a, b) => collator.compare(a.published_at, b.published_at),
          cell: (one) => h("time", { datetime: one.published_at, title: one.published_at }, moment(one.published_at)) },
        { id: "author", title: "Author", value: (one) => one.author, cell: (one) => remote(one.author || "–", null, 120) },
        { id: "comment", title: "Comment", kind: "wide", value: (one) => one.comment,
          cell: (one) => remote(one.comment || "–", null, 200) },
        { id: "type", title: "Type", value: (one) => one.content_type, cell: (one) => remote(one.content_type) },
        { id: "size", title: "Size", kind: "number", value: (one) => String(one.size), order: (a, b) => a.size - b.size,
          cell: (one) => bytes(one.size) },
        { id: "expires", title: "Expires", kind: "time", value: (one) => one.expires ?? "",
          order: (a, b) => (a.expires ?? "~").localeCompare(b.expires ?? "~"),
          cell: (one) => (one.expires ? h("time", { datetime: one.expires, title: one.expires }, moment(one.expires)) : "never") },
        { id: "version", title: "Version", kind: "mono", value: (one) => one.version, cell: (one) => version(one.version) },
      ],
    });
    this.element = h("section", { "aria-label": "Documents" }, h("h1", null, "Documents"), this.table.element);
  }

  show() {
    this.draw();
  }

  hide() {}

  update(topics) {
    if (topics.has("documents")) this.draw();
  }

  draw() {
    const { store } = this;
    if (store.documents) {
      this.table.update([...store.documents.values()]);
      return;
    }
    this.table.message.hidden = false;
    this.table.message.replaceChildren(store.problems.documents
      ? note("bad", "The documents cannot be read.", store.problems.documents) : h("p", { class: "loading" }, "Loading …"));
  }
}
