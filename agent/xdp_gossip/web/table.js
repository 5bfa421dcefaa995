// SPDX-License-Identifier: MIT
// A table for lists of any length: filter, order, and no more rows in the page than somebody can read.

import { h } from "./dom.js";
import { collator, count } from "./format.js";

const ROWS = 200;
const TYPING = 120;

// columns: [{ id, title, value(item) -> text, cell(item)? -> node, order(a, b)?, kind? }]; a cell is made anew only when
// its value is another. `search(item)` is the text that the filter looks into; without it there is no filter.
export class Table {
  constructor({ label, columns, key, search, sort, empty, extra }) {
    Object.assign(this, { columns, key, search, empty });
    this.items = [];
    this.sort = { id: sort ?? columns[0].id, down: false };
    this.rows = new Map();
    this.most = ROWS;
    this.words = [];
    this.accept = () => true;
    this.headers = new Map();
    const head = columns.map((column) => this.header(column));
    this.body = h("tbody", { role: "rowgroup" });
    this.told = h("p", { class: "count", role: "status" });
    this.more = h("button", { type: "button", class: "quiet", hidden: true, click: () => this.showMore() }, `Show ${ROWS} more`);
    this.table = h("table", { role: "table", "aria-label": label },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)), this.body);
    this.filter = search && h("input", {
      type: "search", class: "filter", placeholder: "Filter", "aria-label": `Filter: ${label}`, autocomplete: "off",
      spellcheck: "false", "aria-keyshortcuts": "/", input: () => this.typed(),
    });
    this.message = h("div", { class: "empty", hidden: true });
    this.element = h("div", { class: "list" }, h("div", { class: "tools" }, this.filter, extra), this.table, this.message,
      h("div", { class: "foot" }, this.told, this.more));
  }

  header(column) {
    const button = h("button", { type: "button", click: () => this.order(column.id) }, column.title);
    const cell = h("th", { role: "columnheader", scope: "col", class: column.kind }, button);
    this.headers.set(column.id, cell);
    return cell;
  }

  order(id) {
    this.sort = { id, down: this.sort.id === id && !this.sort.down };
    this.draw();
  }

  typed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.words = this.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
      this.most = ROWS;
      this.draw();
    }, TYPING);
  }

  showMore() {
    const next = this.most;
    this.most += ROWS;
    this.draw();
    // The button may be gone now: go on reading where the new rows begin.
    this.body.rows[next]?.querySelector("a")?.focus();
  }

  // Only items for which `accept` is true count as matching.
  restrict(accept) {
    this.accept = accept;
    this.most = ROWS;
    this.draw();
  }

  update(items) {
    this.items = items;
    this.draw();
  }

  matching() {
    const found = this.items.filter((item) => {
      if (!this.accept(item)) return false;
      if (!this.words.length) return true;
      const text = this.search(item).toLowerCase();
      return this.words.every((word) => text.includes(word));
    });
    const column = this.columns.find((one) => one.id === this.sort.id);
    const order = column.order ?? ((a, b) => collator.compare(column.value(a), column.value(b)));
    const sign = this.sort.down ? -1 : 1;
    return found.sort((a, b) => sign * order(a, b) || collator.compare(this.key(a), this.key(b)));
  }

  draw() {
    const found = this.matching();
    const shown = found.slice(0, this.most);
    const kept = new Map();
    let place = this.body.firstChild;
    for (const item of shown) {
      const key = this.key(item);
      const row = this.rows.get(key) ?? this.row();
      kept.set(key, row);
      this.refresh(row, item);
      if (row.element === place) place = place.nextSibling;
      else this.body.insertBefore(row.element, place);
    }
    for (const [key, row] of this.rows) if (kept.get(key) !== row) row.element.remove();
    this.rows = kept;
    for (const [id, cell] of this.headers) {
      cell.setAttribute("aria-sort", id !== this.sort.id ? "none" : this.sort.down ? "descending" : "ascending");
    }
    this.tell(found.length, shown.length);
  }

  row() {
    const cells = this.columns.map((column) =>
      h("td", { role: "cell", "data-label": column.title, class: column.kind }));
    return { element: h("tr", { role: "row" }, cells), cells, values: [] };
  }

  refresh(row, item) {
    this.columns.forEach((column, index) => {
      const value = column.value(item);
      if (row.values[index] === value) return;
      row.values[index] = value;
      row.cells[index].replaceChildren(column.cell ? column.cell(item) : value);
    });
  }

  tell(found, shown) {
    const all = this.items.length;
    this.more.hidden = shown === found;
    this.table.hidden = !found;
    this.message.hidden = Boolean(found);
    if (!found) this.message.replaceChildren(all ? h("p", null, "Nothing matches the filter.") : this.empty());
    const matching = found === all ? count(all) : `${count(found)} matching of ${count(all)}`;
    const text = shown === found ? matching : `${count(shown)} shown of ${matching}`;
    if (this.told.textContent !== text) this.told.textContent = text;
  }
}
