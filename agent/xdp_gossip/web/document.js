// SPDX-License-Identifier: MIT
// The view of one document: its properties, the members that hold and have applied it, its content and its history.

import { get, keyPath } from "./api.js";
import { copyButton } from "./copy.js";
import { documentLink, version } from "./documents.js";
import { exact, h, hasUnseen, note, plainLines, remote } from "./dom.js";
import { author, bytes } from "./format.js";
import { History } from "./history.js";
import { Holders } from "./holders.js";
import { time } from "./tree.js";

const SHOWN = 256 * 1024;

function text(base64) {
  const raw = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(raw);
  } catch {
    return null;
  }
}

// What everybody may know of a sealed document. Its content is not on this member in clear text.
function sealed(about) {
  if (about.damaged) return [["Sealed", note("bad", "The envelope is damaged, so nobody can open it.", about.damaged), "wide"]];
  const recipients = about.recipients.slice(0, 64).map((one) => h("li", { title: one.key }, remote(one.name || one.key)));
  const more = about.recipients.length - recipients.length;
  return [
    ["Sealed content", h("span", null, remote(about.content_type), `, ${bytes(about.size)}`)],
    ["Sealed for", h("ul", { class: "plain" }, ...recipients, more > 0 ? h("li", { class: "muted" }, `${more} more`) : ""), "wide"],
  ];
}

export class OneDocument {
  constructor(store, key) {
    Object.assign(this, { store, key, title: key });
    this.holders = new Holders(key);
    this.history = new History(key);
    this.facts = h("dl", { class: "facts" });
    this.message = h("div");
    this.button = h("button", { type: "button", click: () => this.content() }, "Show");
    this.copied = h("span");
    this.value = h("div", null, h("p", { class: "muted line" }, "Not shown: it may hold secrets."));
    this.contentPart = h("section", { "aria-label": "Content" }, h("div", { class: "heading" }, h("h2", null, "Content"), this.button, this.copied), this.value);
    this.element = h("article", null,
      h("nav", { class: "back", "aria-label": "Prefixes" }, this.way()),
      h("div", { class: "heading" }, h("h1", { class: "mono" }, exact(key)), copyButton("key", key, "Copy key")),
      hasUnseen(key) && note("warn", "This key has characters that cannot be seen, or that look like others.",
        "They are marked above. The button copies the key as it is."), this.message, this.facts,
      this.holders.element, this.contentPart, this.history.element);
  }

  // Builds the breadcrumb links: the list of documents, and each prefix of the key.
  way() {
    const names = this.key.split("/").slice(0, -1);
    return h("ol", null, h("li", null, h("a", { href: "#/documents" }, "Documents")), names.map((one, index) =>
      h("li", null, h("a", { class: "mono", href: documentLink(`${names.slice(0, index + 1).join("/")}/`) }, exact(one)))));
  }

  show() {
    this.draw();
    if (!this.held) this.history.load();
  }

  hide() {
    this.history.stop();
  }

  update(topics) {
    if (topics.has("documents")) this.draw();
  }

  draw() {
    const { documents, problems } = this.store;
    if (!documents) {
      this.message.replaceChildren(problems.documents
        ? note("bad", "The documents cannot be read.", problems.documents) : h("p", { class: "loading" }, "Loading …"));
      return;
    }
    const held = documents.get(this.key);
    const before = this.held;
    if (this.known && held?.version === before?.version) return;
    this.known = true;
    this.held = held;
    this.contentPart.hidden = this.holders.element.hidden = !held;
    this.message.replaceChildren(held ? "" : note("warn", "There is no such document now.", "It was deleted, has expired, or never was."));
    this.facts.replaceChildren(...(held ? this.rows(held) : []));
    if (held) this.holders.about(held.version);
    if (before && held) {
      this.value.replaceChildren(h("p", { class: "muted line" }, "Another version is held now: show it again."));
      this.copied.replaceChildren();
      this.button.disabled = false;
    }
    this.history.load();
  }

  rows(held) {
    // Documents that were written together have the same version. Those that are missing here were written again or
    // deleted.
    const others = [...this.store.documents.values()]
      .filter((one) => one.version === held.version && one.key !== this.key).map((one) => one.key);
    const changed = held.batch_size - 1 - others.length;
    return [
      ["Published", time(held.published_at)],
      ["Author", remote(author(held) || "–")],
      ["Comment", remote(held.comment || "–", null, 2000)],
      ["Type", remote(held.content_type)],
      ...(held.sealed ? sealed(held.sealed) : []),
      ["Size", `${bytes(held.size)}${held.size >= 1024 ? ` (${held.size.toLocaleString("en")} bytes)` : ""}`],
      ["Expires", held.expires ? time(held.expires) : "never"],
      ["Version", h("span", { class: "at" }, version(held.version), copyButton("version", held.version)), "wide"],
      ["Digest", h("span", { class: "at" }, h("span", { class: "mono break" }, held.digest), copyButton("digest", held.digest)), "wide"],
      ...(others.length + changed > 0 ? [["Written with", h("ul", { class: "plain" }, ...others.slice(0, 64).map((key) =>
        h("li", null, h("a", { class: "mono", href: documentLink(key) }, exact(key)))),
        changed > 0 ? h("li", { class: "muted" }, `${changed} that changed since`) : "")]] : []),
    ].map(([term, value, kind]) => h("div", { class: kind }, h("dt", null, term), h("dd", null, value)));
  }

  async content() {
    const wanted = this.held;
    if (!wanted) return;
    if (wanted.sealed) {
      this.value.replaceChildren(note("", "The content is sealed.", "On a recipient, as root: xdp-gossip read KEY --open"));
      return;
    }
    if (wanted.size > SHOWN) {
      this.value.replaceChildren(note("", `${bytes(wanted.size)} are too much for this page.`, "Read it with: xdp-gossip read KEY"));
      return;
    }
    this.button.disabled = true;
    try {
      const found = await get(`documents/${keyPath(this.key)}`, { query: { format: "json" } });
      if (this.held?.version !== wanted.version) return;
      const content = text(found.value_base64);
      this.value.replaceChildren(content === null ? note("", "The content is no text.")
        : content === "" ? note("", "The content is empty.")
          : h("pre", { class: "value", tabindex: "0", "aria-label": "Content" }, plainLines(content)));
      if (content) this.copied.replaceChildren(copyButton("content", content, "Copy content"));
    } catch (error) {
      this.value.replaceChildren(note("bad", "The content cannot be read.", error.message));
      this.button.disabled = false;
    }
  }
}
