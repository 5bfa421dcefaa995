// SPDX-License-Identifier: MIT
// A table for lists of any length: it can be filtered and sorted, and it limits the number of rows on the page.

import { h, say } from "./dom.js";
import { collator, count, plural } from "./format.js";
import { Rows } from "./rows.js";

const ROWS = 200;
const TYPING = 120;
// A list of at most this many items has no filter.
const SHORT = 8;

// columns: those of Rows, each with an `id` and, if its values cannot be compared, `order(a, b)`. A column with
// `when(items)` is shown only while the function returns true. `search(item)` returns the text to filter by; without it
// there is no filter. `filtered()` is called when the filter changes.
export class Table {
  constructor({ label, columns, key, search, sort, empty, extra, noun = "row", hint = "Filter", filtered = () => {} }) {
    Object.assign(this, { columns, key, search, empty, extra, noun, filtered });
    this.texts = new WeakMap(); // item -> the text to filter by
    this.places = new Map(); // key -> position in the last order, because sorting a nearly sorted list is fast
    this.items = [];
    this.sort = { id: sort ?? columns[0].id, down: false };
    this.rows = new Rows(columns, key);
    this.most = ROWS;
    this.words = [];
    this.accept = () => true;
    this.headers = new Map();
    for (const column of columns) if (column.when) column.hidden = true;
    const head = columns.map((column) => this.header(column));
    this.told = h("p", { class: "count" });
    this.more = h("button", { type: "button", class: "quiet", hidden: true, click: () => this.showMore() }, `Show ${ROWS} more`);
    this.table = h("table", { role: "table", "aria-label": label },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, head)), this.rows.body);
    this.filter = search && h("input", {
      type: "search", class: "filter", placeholder: hint, "aria-label": `${hint}: ${label}`, autocomplete: "off",
      spellcheck: "false", "aria-keyshortcuts": "/", input: () => this.typed(),
    });
    this.message = h("div", { class: "empty", hidden: true });
    this.tools = h("div", { class: "tools" }, this.filter, extra);
    this.list = h("div", null, this.table, this.message, h("div", { class: "foot" }, this.told, this.more));
    this.element = h("div", { class: "list" }, this.tools, this.list);
  }

  header(column) {
    const button = h("button", { type: "button", click: () => this.order(column.id) }, column.title);
    const cell = h("th", { role: "columnheader", scope: "col", class: column.kind, hidden: column.hidden }, button);
    this.headers.set(column.id, cell);
    return cell;
  }

  order(id) {
    this.sort = { id, down: this.sort.id === id && !this.sort.down };
    this.draw();
  }

  // Sets the filter to the words of a text.
  look(text) {
    this.filter.value = text;
    this.words = text.toLowerCase().split(/\s+/).filter(Boolean);
  }

  typed() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.look(this.filter.value);
      this.most = ROWS;
      this.filtered();
      this.draw();
      // Screen readers hear the result of a filter only, because a fleet changes all the time.
      say(this.words.length ? this.told.textContent : "");
    }, TYPING);
  }

  showMore() {
    const next = this.most;
    this.most += ROWS;
    this.draw();
    // The button may have disappeared, so move the focus to the first new row.
    this.rows.body.rows[next]?.querySelector("a")?.focus();
  }

  // Limits the matching items to those for which `accept` is true.
  restrict(accept) {
    this.accept = accept;
    this.most = ROWS;
    if (this.items.length) this.draw();
  }

  update(items) {
    this.items = items;
    for (const column of this.columns) {
      if (!column.when || column.hidden !== column.when(items)) continue;
      column.hidden = !column.hidden;
      this.headers.get(column.id).hidden = column.hidden;
      this.rows.reveal(column);
    }
    this.draw();
  }

  text(item) {
    let text = this.texts.get(item);
    if (text === undefined) this.texts.set(item, text = this.search(item).toLowerCase());
    return text;
  }

  matching() {
    const found = this.items.filter((item) => this.accept(item) && this.words.every((word) => this.text(item).includes(word)));
    const column = this.columns.find((one) => one.id === this.sort.id);
    const order = column.order ?? ((a, b) => collator.compare(column.value(a), column.value(b)));
    const sign = this.sort.down ? -1 : 1;
    const { places, key } = this;
    const last = places.size;
    const sorted = found.map((item) => [places.get(key(item)) ?? last, item]).sort((a, b) => a[0] - b[0]).map((pair) => pair[1]);
    sorted.sort((a, b) => sign * order(a, b) || collator.compare(key(a), key(b)));
    this.places = new Map(sorted.map((item, place) => [key(item), place]));
    return sorted;
  }

  draw() {
    const found = this.matching();
    const shown = found.slice(0, this.most);
    this.rows.draw(shown);
    for (const [id, cell] of this.headers) {
      cell.setAttribute("aria-sort", id !== this.sort.id ? "none" : this.sort.down ? "descending" : "ascending");
    }
    this.tell(found.length, shown.length);
  }

  tell(found, shown) {
    const all = this.items.length;
    this.more.hidden = shown === found;
    this.table.hidden = !found;
    this.message.hidden = Boolean(found);
    if (!found) this.message.replaceChildren(all ? h("p", null, "Nothing matches the filter.") : this.empty());
    this.tools.hidden = !this.extra && all <= SHORT && !this.words.length;
    this.told.hidden = all <= SHORT && found === all;
    const matching = found === all ? plural(all, this.noun) : `${count(found)} matching of ${plural(all, this.noun)}`;
    const text = shown === found ? matching : `${count(shown)} shown of ${matching}`;
    if (this.told.textContent !== text) this.told.textContent = text;
  }
}
