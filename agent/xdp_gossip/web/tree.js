// SPDX-License-Identifier: MIT
// Documents as a tree of key prefixes: one folder per prefix with its number of documents. Only open folders are in the
// page.

import { copyButton } from "./copy.js";
import { exact, h, plain, remote } from "./dom.js";
import { author, bytes, collator, count, moment, plural } from "./format.js";
import { Rows } from "./rows.js";

const ROWS = 100;
// A tree of at most this many documents is shown completely open.
const SMALL = 40;
const DEEPEST = 8;

export const documentLink = (key) => `#/documents/${encodeURIComponent(key)}`;

export function time(text) {
  return h("time", { datetime: text, title: text }, moment(text));
}

// Builds the tree of folders. `leaves` are the documents directly in a folder; `count`, `size` and `newest` include all
// folders below it.
export function plant(documents) {
  const folder = (prefix, name) => ({ prefix, name, folders: new Map(), leaves: [], count: 0, size: 0, newest: "" });
  const root = folder("", "");
  for (const one of documents) {
    const names = one.key.split("/");
    let place = root;
    for (let depth = 0; ; depth += 1) {
      place.count += 1;
      place.size += one.size;
      if (one.published_at > place.newest) place.newest = one.published_at;
      if (depth === names.length - 1) break;
      const name = names[depth];
      let next = place.folders.get(name);
      if (!next) place.folders.set(name, next = folder(`${place.prefix}${name}/`, name));
      place = next;
    }
    place.leaves.push(one);
  }
  return root;
}

// A folder that contains only one folder is shown together with it, as one row.
function joined(folder) {
  const chain = [folder];
  while (!chain.at(-1).leaves.length && chain.at(-1).folders.size === 1) chain.push([...chain.at(-1).folders.values()][0]);
  return chain;
}

const byName = (a, b) => collator.compare(a.name, b.name) || (a.name < b.name ? -1 : 1);
const byKey = (a, b) => collator.compare(a.key, b.key) || (a.key < b.key ? -1 : 1);

export class Tree {
  constructor() {
    this.open = null; // open prefixes; null before the first documents
    this.most = new Map(); // prefix -> number of its entries that are shown
    const empty = () => "";
    const of = (leaf, folder = empty) => ({
      value: (row) => (row.document ? leaf(row.document) : row.folder ? folder(row.folder) : ""),
    });
    this.rows = new Rows([
      { title: "Key", kind: "main mono", value: (row) => `${row.id} ${row.depth} ${row.name} ${row.open} ${row.folder?.count ?? row.left}`,
        cell: (row) => this.name(row) },
      { title: "Published", kind: "time", ...of((one) => one.published_at, (folder) => folder.newest),
        cell: (row) => (row.document ? time(row.document.published_at)
          : row.folder ? h("span", { class: "muted" }, "newest ", time(row.folder.newest)) : "") },
      { title: "Author", ...of(author), cell: (row) => (row.document ? remote(author(row.document) || "–", null, 120) : "") },
      { title: "Comment", kind: "wide", ...of((one) => one.comment), cell: (row) => (row.document ? remote(row.document.comment || "–", null, 200) : "") },
      { title: "Type", ...of((one) => one.content_type), cell: (row) => (row.document ? remote(row.document.content_type) : "") },
      { title: "Size", kind: "number", ...of((one) => bytes(one.size), (folder) => bytes(folder.size)) },
    ], (row) => row.id);
    this.rows.body.addEventListener("keydown", (event) => this.key(event));
    const heads = this.rows.columns.map((column) => h("th", { role: "columnheader", scope: "col", class: column.kind }, column.title));
    this.table = h("table", { class: "tree", role: "table", "aria-label": "Documents by prefix" },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads)), this.rows.body);
    this.told = h("p", { class: "count" });
    this.close = h("button", { type: "button", class: "quiet", click: () => this.closeAll() }, "Close all");
    this.element = h("div", null, this.table, h("div", { class: "foot" }, this.told, this.close));
  }

  update(documents) {
    this.root = plant(documents);
    if (!this.open) {
      this.open = new Set(this.wanted);
      if (this.root.count && this.root.count <= SMALL) this.openBelow(this.root);
    }
    this.draw();
  }

  openBelow(folder) {
    for (const one of folder.folders.values()) {
      this.open.add(one.prefix);
      this.openBelow(one);
    }
  }

  closeAll() {
    this.open.clear();
    this.most.clear();
    this.draw();
    this.table.querySelector("[data-at]")?.focus();
  }

  // Opens a prefix and all its parents.
  reveal(prefix) {
    const names = prefix.split("/").slice(0, -1);
    const all = names.map((_, index) => `${names.slice(0, index + 1).join("/")}/`);
    if (!this.open) this.wanted = all;
    all.forEach((one) => this.open?.add(one));
    this.sought = prefix;
    if (this.root) this.draw();
  }

  toggle(row) {
    const open = this.open.has(row.folder.prefix);
    for (const one of row.chain) this.open[open ? "delete" : "add"](one.prefix);
    this.draw();
  }

  showMore(row) {
    this.most.set(row.prefix, this.limit(row.prefix) + ROWS);
    const before = this.rows.element(row.id)?.previousSibling;
    this.draw();
    before?.nextSibling?.querySelector("[data-at]")?.focus();
  }

  limit(prefix) {
    return this.most.get(prefix) ?? ROWS;
  }

  // Adds the rows of all open folders.
  list(folder, depth, rows) {
    const folders = [...folder.folders.values()].sort(byName);
    const most = this.limit(folder.prefix);
    const leaf = (one) => rows.push({ id: `=${one.key}`, document: one, depth, name: one.key.slice(folder.prefix.length) });
    for (const one of folders.slice(0, most)) {
      const chain = joined(one);
      const last = chain.at(-1);
      // A folder with a single document is shown as that document.
      if (last.count === 1) {
        leaf(last.leaves[0]);
        continue;
      }
      const open = this.open.has(last.prefix);
      rows.push({ id: `/${last.prefix}`, folder: last, chain, depth, open, name: chain.map((each) => `${each.name}/`).join("") });
      if (open) this.list(last, depth + 1, rows);
    }
    const left = folders.length + folder.leaves.length - most;
    const leaves = folder.leaves.sort(byKey).slice(0, Math.max(0, most - folders.length));
    leaves.forEach(leaf);
    if (left > 0) rows.push({ id: `+${folder.prefix}`, prefix: folder.prefix, depth, left });
    return rows;
  }

  draw() {
    const rows = this.list(this.root, 0, []);
    this.rows.draw(rows);
    this.told.textContent = plural(this.root.count, "document");
    this.close.hidden = !this.open.size;
    if (!this.sought || !this.element.isConnected) return;
    const at = rows.find((row) => (row.folder?.prefix ?? row.document?.key ?? "").startsWith(this.sought));
    this.sought = null;
    const place = at && this.rows.element(at.id);
    place?.scrollIntoView({ block: "center" });
    place?.querySelector("[data-at]")?.focus({ preventScroll: true });
  }

  name(row) {
    const indent = { class: `at depth${Math.min(row.depth, DEEPEST)}` };
    if (row.document) {
      return h("div", indent, h("a", { href: documentLink(row.document.key), "data-at": "", "aria-label": plain(row.document.key) },
        exact(row.name)), copyButton("key", row.document.key));
    }
    if (row.folder) {
      return h("div", indent, h("button", {
        type: "button", class: "folder", "data-at": "", "aria-expanded": String(row.open),
        "aria-label": `${plain(row.folder.prefix)}, ${plural(row.folder.count, "document")}`, click: () => this.toggle(row),
      }, h("span", { class: "twist", "aria-hidden": "true" }), exact(row.name), h("span", { class: "muted tally" }, count(row.folder.count))));
    }
    return h("div", indent, h("button", { type: "button", class: "quiet", "data-at": "", click: () => this.showMore(row) },
      `Show ${count(Math.min(ROWS, row.left))} more of ${count(row.left)}`));
  }

  // Handles the arrow keys as usual in a tree; the tab key also moves between its links.
  key(event) {
    const all = [...this.table.querySelectorAll("[data-at]")];
    const at = all.indexOf(event.target);
    if (at < 0 || event.altKey || event.ctrlKey || event.metaKey) return;
    const expanded = event.target.getAttribute("aria-expanded");
    const depth = (one) => Number(/depth(\d+)/.exec(one.parentElement.className)[1]);
    const above = () => all.slice(0, at).reverse().find((one) => depth(one) < depth(event.target));
    const go = {
      ArrowDown: () => all[at + 1]?.focus(),
      ArrowUp: () => all[at - 1]?.focus(),
      Home: () => all[0].focus(),
      End: () => all.at(-1).focus(),
      ArrowRight: () => (expanded === "false" ? event.target.click() : expanded === "true" && all[at + 1]?.focus()),
      ArrowLeft: () => (expanded === "true" ? event.target.click() : above()?.focus()),
    }[event.key];
    if (!go) return;
    event.preventDefault();
    go();
  }
}
