// SPDX-License-Identifier: MIT
// Table rows whose elements are kept while their items change: only a cell with a new value is drawn again.

import { h } from "./dom.js";

// columns: [{ title, kind?, value(item) -> text, cell(item)? -> node, hidden? }]. `key(item)` identifies a row.
export class Rows {
  constructor(columns, key) {
    Object.assign(this, { columns, key });
    this.rows = new Map();
    this.body = h("tbody", { role: "rowgroup" });
  }

  draw(items) {
    const kept = new Map();
    let place = this.body.firstChild;
    for (const item of items) {
      const key = this.key(item);
      const row = this.rows.get(key) ?? this.row();
      kept.set(key, row);
      this.refresh(row, item);
      if (row.element === place) place = place.nextSibling;
      else this.body.insertBefore(row.element, place);
    }
    for (const [key, row] of this.rows) if (kept.get(key) !== row) row.element.remove();
    this.rows = kept;
  }

  element(key) {
    return this.rows.get(key)?.element;
  }

  row() {
    const cells = this.columns.map((column) =>
      h("td", { role: "cell", "data-label": column.title, class: column.kind, hidden: column.hidden }));
    return { element: h("tr", { role: "row" }, cells), cells, values: [] };
  }

  // Shows or hides a column whose `hidden` has changed.
  reveal(column) {
    const index = this.columns.indexOf(column);
    for (const { cells } of this.rows.values()) cells[index].hidden = column.hidden;
  }

  refresh(row, item) {
    this.columns.forEach((column, index) => {
      const value = column.value(item);
      if (row.values[index] === value) return;
      row.values[index] = value;
      const cell = row.cells[index];
      // If the cell has the keyboard focus, it keeps the focus after the redraw.
      const focused = cell.contains(document.activeElement)
        ? [...cell.querySelectorAll("a, button")].indexOf(document.activeElement) : -1;
      cell.replaceChildren(column.cell ? column.cell(item) : value);
      if (focused >= 0) cell.querySelectorAll("a, button")[focused]?.focus({ preventScroll: true });
    });
  }
}
