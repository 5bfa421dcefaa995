// SPDX-License-Identifier: MIT
// The list of problems at the top of the page, each with its remedy; a single line if there are none.

import { copyButton } from "./copy.js";
import { h, plain, remote, say, state } from "./dom.js";
import { findings } from "./findings.js";
import { address, count, plural } from "./format.js";

const NAMED = 4;
// Milliseconds for which a problem must last before screen readers announce it.
const SETTLED = 4_000;

export class Trouble {
  constructor(store) {
    this.store = store;
    this.found = [];
    this.list = h("ul", { class: "troubles" });
    this.fine = h("p", { class: "fine" });
    this.head = h("h2", { id: "trouble-head" });
    this.element = h("section", { class: "trouble", tabindex: "-1", "aria-labelledby": "trouble-head" }, this.head, this.list, this.fine);
  }

  // "3 problems", or "" if there are none.
  get summary() {
    return this.found.length ? plural(this.found.length, "problem") : "";
  }

  // Updates the list. Returns true if the summary has changed.
  update() {
    const { store } = this;
    const before = this.kind;
    const last = this.found.length;
    this.found = findings(store);
    const known = store.nodes && store.status;
    this.kind = !known && !this.found.length ? "off" : this.found.length === 0 ? "ok" : this.found.some((one) => one.kind === "bad") ? "bad" : "warn";
    this.draw(known);
    if (this.kind === before && this.found.length === last) return false;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.tell(), SETTLED);
    return true;
  }

  tell() {
    const text = this.found.length ? this.summary : "Nothing is wrong";
    if (text !== this.told && this.kind !== "off" && (this.told || this.found.length)) say(text);
    this.told = text;
  }

  stop() {
    clearTimeout(this.timer);
  }

  draw(known) {
    const some = this.found.length > 0;
    this.element.classList.toggle("none", !some);
    this.head.textContent = some ? plural(this.found.length, "problem") : "State";
    this.list.hidden = !some;
    this.fine.hidden = some;
    if (!some) {
      const text = known ? this.wellness() : "Looking …";
      if (this.fine.dataset.text !== text) {
        this.fine.dataset.text = text;
        this.fine.replaceChildren(state(text, known ? "ok" : "off"));
      }
      this.drawn = "";
      return;
    }
    const text = JSON.stringify(this.found.map((one) => ({ ...one, who: one.who?.map((node) => [node.name, address(node), node.why]) })));
    if (text === this.drawn) return;
    this.drawn = text;
    const focused = [...this.list.querySelectorAll("a, button")].indexOf(document.activeElement);
    this.list.replaceChildren(...this.found.map((one) => this.entry(one)));
    if (focused >= 0) this.list.querySelectorAll("a, button")[focused]?.focus({ preventScroll: true });
  }

  wellness() {
    const { store } = this;
    const nodes = [...store.nodes.values()];
    const alive = nodes.filter((node) => node.state === "alive").length;
    const files = store.files?.templates ? `, ${plural(store.files.templates, "rendered file")} in place or on the way` : "";
    return `Nothing is wrong: ${plural(alive, "node")} alive${files}.`;
  }

  entry(one) {
    const { who } = one;
    const href = one.view ? `#/${one.view}` : one.show ? `#/fleet/${one.show}` : null;
    const title = href ? h("a", { href }, one.title) : one.title;
    const names = who && h("ul", { class: "who" }, who.slice(0, NAMED).map((node) => h("li", null,
      remote(node.name || "no name", { class: "name" }, 64), " ", h("span", { class: "mono muted" }, address(node)),
      copyButton(`address ${plain(address(node))}`, address(node)), node.why && remote(node.why, { class: "why" }, 200))),
    who.length > NAMED && h("li", { class: "muted" }, href ? h("a", { href }, `and ${count(who.length - NAMED)} more`) : `and ${count(who.length - NAMED)} more`));
    return h("li", { class: one.kind },
      h("p", { class: "title" }, state("", one.kind), h("span", { class: "aside" }, one.kind === "bad" ? "Failure: " : "Warning: "), title),
      h("div", { class: "about" }, one.about && h("p", null, remote(one.about)), names), h("p", { class: "todo" }, one.todo));
  }
}
