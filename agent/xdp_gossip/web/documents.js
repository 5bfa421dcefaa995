// SPDX-License-Identifier: MIT
// The view of this member's documents: a tree of prefixes, or a list that can be searched and sorted.

import { copyButton } from "./copy.js";
import { exact, h, note, remote } from "./dom.js";
import { author, bytes, collator } from "./format.js";
import { Table } from "./table.js";
import { Tree, documentLink, time } from "./tree.js";

export { documentLink };

export function version(text) {
  const [stamp, ...origin] = String(text).split("@");
  return h("span", { class: "version", title: String(text) }, stamp, h("span", { class: "muted" }, `@${origin.join("@")}`));
}

export class Documents {
  constructor(store) {
    this.store = store;
    this.title = "Documents";
    this.mode = "tree";
    this.tree = new Tree();
    this.choices = h("div", { class: "chips", role: "group", "aria-label": "Show as" }, ["tree", "list"].map((mode) =>
      h("button", { type: "button", class: "chip", "data-mode": mode, click: () => this.choose(mode) }, mode === "tree" ? "Tree" : "List")));
    this.table = new Table({
      label: "Documents",
      noun: "document",
      key: (one) => one.key,
      sort: "key",
      hint: "Search keys, authors, comments",
      extra: this.choices,
      filtered: () => this.draw(),
      search: (one) => `${one.key} ${one.version} ${author(one)} ${one.comment} ${one.content_type}`,
      empty: () => note("", "There are no documents yet.", "Publish one with: xdp-gossip publish KEY --file FILE"),
      columns: [
        { id: "key", title: "Key", kind: "main mono", value: (one) => one.key,
          cell: (one) => h("div", { class: "at" }, h("a", { href: documentLink(one.key) }, exact(one.key)), copyButton("key", one.key)) },
        { id: "time", title: "Published", kind: "time", value: (one) => one.published_at,
          order: (a, b) => (a.published_at < b.published_at ? -1 : Number(a.published_at > b.published_at)), cell: (one) => time(one.published_at) },
        { id: "author", title: "Author", value: author, cell: (one) => remote(author(one) || "–", null, 120) },
        { id: "comment", title: "Comment", kind: "wide", value: (one) => one.comment,
          cell: (one) => remote(one.comment || "–", null, 200) },
        { id: "type", title: "Type", kind: "spare", value: (one) => one.content_type, cell: (one) => remote(one.content_type) },
        { id: "size", title: "Size", kind: "number", value: (one) => String(one.size), order: (a, b) => a.size - b.size,
          cell: (one) => bytes(one.size) },
        { id: "expires", title: "Expires", kind: "time spare", value: (one) => one.expires ?? "",
          order: (a, b) => collator.compare(a.expires ?? "~", b.expires ?? "~"), cell: (one) => (one.expires ? time(one.expires) : "never") },
        { id: "version", title: "Version", kind: "mono spare", value: (one) => one.version, cell: (one) => version(one.version) },
      ],
    });
    this.element = h("section", { "aria-label": "Documents" }, h("h1", null, "Documents"), this.table.tools,
      this.tree.element, this.table.list);
  }

  choose(mode) {
    this.mode = mode;
    if (mode === "tree") this.table.look("");
    this.draw();
  }

  // Shows the tree with this prefix opened.
  reveal(prefix) {
    this.tree.reveal(prefix);
    this.choose("tree");
  }

  show() {
    this.draw();
  }

  hide() {}

  update(topics) {
    if (topics.has("documents")) this.draw();
  }

  draw() {
    const { documents, problems } = this.store;
    const all = documents ? [...documents.values()] : [];
    // A search shows its results as a list with complete keys.
    const tree = all.length > 0 && this.mode === "tree" && !this.table.words.length;
    for (const one of this.choices.children) one.setAttribute("aria-pressed", String((one.dataset.mode === "tree") === tree));
    this.tree.element.hidden = !tree;
    this.table.list.hidden = tree;
    if (tree) this.tree.update(all);
    else if (documents) this.table.update(all);
    else {
      this.table.message.hidden = false;
      this.table.message.replaceChildren(problems.documents
        ? note("bad", "The documents cannot be read.", problems.documents) : h("p", { class: "loading" }, "Loading …"));
    }
  }
}
