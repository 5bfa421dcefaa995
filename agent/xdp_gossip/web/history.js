// SPDX-License-Identifier: MIT
// The versions of a document that this member has stored, each with its difference from the version before.

import { get, keyPath } from "./api.js";
import { h, note, plainLines, remote, state } from "./dom.js";
import { author, bytes, moment, plural } from "./format.js";
import { version } from "./documents.js";

const LINES = 400;
const LONG = 2000;

const KINDS = { "+": "added", "-": "removed", "@": "place" };

function diffLine(text) {
  const shown = text.length > LONG ? `${text.slice(0, LONG)} … (${plural(text.length, "character")})` : text;
  return h("span", { class: `diffline ${KINDS[text[0]] ?? ""}` }, `${plainLines(shown)}\n`);
}

// Renders a unified diff without its two lines of file names, which carry no information here.
export function diff(text) {
  const lines = text.split("\n").filter((line, index) => !(index < 2 && /^(---|\+\+\+)/.test(line)));
  if (lines.at(-1) === "") lines.pop();
  if (!lines.length) return h("p", { class: "muted" }, "The content is the same.");
  const pre = h("pre", { class: "diff", tabindex: "0", "aria-label": "Changes" }, lines.slice(0, LINES).map(diffLine));
  if (lines.length <= LINES) return pre;
  const rest = h("button", {
    type: "button", class: "quiet",
    click: () => {
      pre.append(...lines.slice(LINES, 20 * LINES).map(diffLine));
      const left = lines.length - 20 * LINES;
      rest.replaceWith(left > 0 ? h("p", { class: "muted" }, `${plural(left, "more line")}, not shown`) : "");
      pre.focus();
    },
  }, `Show ${plural(lines.length - LINES, "more line")}`);
  return h("div", null, pre, rest);
}

function change(one, oldest) {
  if (one.deleted) return h("p", { class: "muted" }, "It was deleted.");
  if (typeof one.diff === "string") return diff(one.diff);
  return h("p", { class: "muted" }, oldest && one.diff === undefined
    ? "The oldest version that this member has." : "No text, or too large to compare.");
}

export class History {
  constructor(key) {
    this.key = key;
    this.open = new Set();
    this.place = h("div", null, h("p", { class: "loading" }, "Loading …"));
    this.element = h("section", { "aria-label": "History" }, h("h2", null, "History"), this.place);
  }

  async load() {
    this.control?.abort();
    const control = this.control = new AbortController();
    try {
      const answer = await get(`history/${keyPath(this.key)}`, { query: { diff: "1" }, signal: control.signal, seconds: 60 });
      this.draw(answer.versions);
      return answer.versions;
    } catch (error) {
      if (control.signal.aborted) return null;
      this.place.replaceChildren(error.code === "document_not_found"
        ? note("", "This member has no version of it.") : note("bad", "The history cannot be read.", error.message));
      return null;
    }
  }

  stop() {
    this.control?.abort();
  }

  draw(versions) {
    if (!this.drawn) this.open.add(versions[0].version);
    this.drawn = true;
    this.place.replaceChildren(h("ol", { class: "history" }, versions.map((one, index) => this.entry(one, index, versions.length))));
  }

  entry(one, index, all) {
    const marks = [index === 0 && h("span", { class: "tag" }, "newest"), one.deleted && state("deleted", "bad"),
      one.conflict && state("overwritten by an author who had not seen it", "warn")];
    const details = h("details", {
      open: this.open.has(one.version),
      toggle: () => this.open[details.open ? "add" : "delete"](one.version),
    },
    h("summary", null,
      h("time", { datetime: one.published_at, title: one.published_at }, moment(one.published_at)), " ",
      remote(author(one) || "no author", { class: author(one) ? "" : "muted" }, 120), " ", marks,
      one.comment && remote(one.comment, { class: "comment" }, 400)),
    h("p", { class: "muted line" }, version(one.version), one.deleted ? "" : ` · ${bytes(one.size)}`),
    change(one, index === all - 1));
    return h("li", null, details);
  }
}
