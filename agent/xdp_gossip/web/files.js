// SPDX-License-Identifier: MIT
// The files that this member renders from documents.

import { get } from "./api.js";
import { documentLink, version } from "./documents.js";
import { h, note, remote, state } from "./dom.js";
import { collator, moment } from "./format.js";
import { Table } from "./table.js";

const KINDS = { applied: "ok", pending: "warn", failed: "bad" };
const RANK = { failed: 0, pending: 1, applied: 2 };
const EVERY = 5_000;

/** What went wrong, and what the command said if that may be shown. */
function told(one) {
  return [one.error, one.output].filter(Boolean).join(": ");
}

export class Files {
  constructor(store) {
    this.store = store;
    this.title = "Files";
    this.place = h("div", null, h("p", { class: "loading" }, "Loading …"));
    this.table = new Table({
      label: "Rendered files",
      key: (one) => one.name,
      sort: "name",
      search: (one) => `${one.name} ${one.path} ${one.state} ${told(one)} ${Object.keys(one.documents).join(" ")}`,
      empty: () => note("", "This member renders no files.", "They are set up as templates: in its agent.yml."),
      columns: [
        { id: "name", title: "Template", kind: "main", value: (one) => one.name, cell: (one) => remote(one.name) },
        { id: "path", title: "File", kind: "mono", value: (one) => one.path, cell: (one) => remote(one.path) },
        { id: "state", title: "State", kind: "wide", value: (one) => `${one.state} ${told(one)}`,
          order: (a, b) => RANK[a.state] - RANK[b.state] || collator.compare(a.name, b.name),
          cell: (one) => h("div", { class: "stack" }, state(one.state, KINDS[one.state] ?? "off"), told(one) && remote(told(one), { class: "sub" }, 600)) },
        { id: "documents", title: "Documents", value: (one) => JSON.stringify([one.documents, Object.keys(one.documents).map((key) => this.newer(key, one.documents[key]))]),
          cell: (one) => this.documents(one.documents) },
        { id: "changed", title: "File changed", kind: "time", value: (one) => one.changed ?? "",
          cell: (one) => (one.changed ? h("time", { datetime: one.changed, title: one.changed }, moment(one.changed)) : "never") },
        { id: "since", title: "State since", kind: "time", value: (one) => one.since ?? "",
          cell: (one) => (one.since ? h("time", { datetime: one.since, title: one.since }, moment(one.since)) : "–") },
      ],
    });
    this.element = h("section", { "aria-label": "Files" }, h("h1", null, "Files"),
      h("p", { class: "muted line" }, "Rendered on this member, and the documents that each was made from."), this.place);
  }

  newer(key, used) {
    const held = this.store.documents?.get(key);
    return Boolean(held && used && held.version !== used);
  }

  documents(used) {
    const keys = Object.keys(used).sort(collator.compare);
    if (!keys.length) return "–";
    return h("ul", { class: "plain" }, keys.slice(0, 20).map((key) => h("li", null,
      h("a", { class: "mono", href: documentLink(key) }, remote(key)), " ",
      used[key] ? version(used[key]) : h("span", { class: "muted" }, "missing"), " ",
      this.newer(key, used[key]) && state("newer held", "warn"))),
    keys.length > 20 && h("li", { class: "muted" }, `and ${keys.length - 20} more`));
  }

  show() {
    this.clock = setInterval(() => document.hidden || this.load(), EVERY);
    this.load();
  }

  hide() {
    clearInterval(this.clock);
    this.control?.abort();
  }

  update(topics) {
    if (topics.has("documents")) this.load();
  }

  async load() {
    this.control?.abort();
    const control = this.control = new AbortController();
    try {
      const { templates } = await get("rendered", { signal: control.signal });
      this.table.update(templates);
      if (this.place.firstChild !== this.table.element) this.place.replaceChildren(this.table.element);
    } catch (error) {
      if (control.signal.aborted) return;
      this.place.replaceChildren(error.status === 404 ? note("", "This member renders no files.")
        : note("bad", "The files cannot be listed.", error.message));
    }
  }
}
