// SPDX-License-Identifier: MIT
// The members that hold a version of a document, and those that have applied it. The fleet is asked only on the user's
// request.

import { get } from "./api.js";
import { copyButton } from "./copy.js";
import { h, note, remote, state } from "./dom.js";
import { address, clock, collator, plural } from "./format.js";
import { name } from "./fleet.js";
import { Table } from "./table.js";

const WAIT = 2;

// Fetches /v1/convergence. In the result, `applied` is false if this member does not support that parameter.
export async function ask(query, { signal, applied = true } = {}) {
  const options = { signal, seconds: Number(query.timeout) + 30 };
  if (!applied) return { found: await get("convergence", { query, ...options }), applied };
  try {
    return { found: await get("convergence", { query: { ...query, applied: "1" }, ...options }), applied };
  } catch (error) {
    if (error.code !== "unknown_parameter") throw error;
    return ask(query, { signal, applied: false });
  }
}

const APPLIED = { applied: "ok", pending: "warn", failed: "bad", none: "off" };
const WORDS = { applied: "applied", pending: "pending", failed: "refused", none: "no template" };

function appliedCell(one) {
  const { applied } = one;
  if (!applied) return "–";
  const error = applied.error && h("span", { class: "sub" }, remote(applied.error));
  const other = applied.state === "applied" && one.version !== applied.version;
  return h("div", { class: "stack" },
    state(other ? `applied ${applied.version}` : WORDS[applied.state] ?? applied.state, other ? "warn" : APPLIED[applied.state] ?? "off"), error);
}

export class Holders {
  constructor(key) {
    this.key = key;
    this.version = null;
    this.button = h("button", { type: "button", click: () => this.ask() }, "Ask all members");
    this.told = h("p", { class: "line", role: "status" }, "Not asked yet.");
    this.place = h("div");
    this.element = h("section", { "aria-label": "Members" },
      h("div", { class: "heading" }, h("h2", null, "Who holds it, who applied it"), this.button), this.told, this.place);
  }

  // If the document has a new version now, the answer shown is about the former one.
  about(version) {
    if (this.version && version !== this.version) this.told.textContent = "Another version is held now: ask again.";
    this.version = version;
  }

  async ask() {
    const { version } = this;
    if (!version || this.button.disabled) return;
    this.button.disabled = true;
    this.told.textContent = "Asking …";
    try {
      const { found, applied } = await ask({ key: this.key, version, timeout: WAIT });
      this.draw(found, applied);
    } catch (error) {
      this.told.textContent = "";
      this.place.replaceChildren(note("bad", "The fleet could not be asked.", error.message));
    } finally {
      this.button.disabled = false;
    }
  }

  draw(found, applied) {
    const holding = found.results.filter((one) => one.holds).length;
    const by = (word) => found.results.filter((one) => one.applied?.state === word).length;
    const parts = [`${holding} of ${plural(found.members, "member")} hold${holding === 1 ? "s" : ""} this version`];
    if (applied && by("none") === found.members) parts.push("no member renders a file from it");
    else if (applied) parts.push(`${by("applied")} applied it`, ...(by("failed") ? [`${by("failed")} refused it`] : []));
    this.told.textContent = `${parts.join(", ")}. Asked at ${clock(new Date())}.`;
    const table = new Table({
      label: "Members",
      noun: "member",
      key: address,
      sort: "holds",
      search: (one) => `${one.name} ${address(one)} ${one.reason} ${one.applied?.state ?? ""}`,
      empty: () => note("", "No member is present."),
      columns: [
        { id: "name", title: "Name", kind: "main", value: (one) => one.name, cell: name },
        { id: "address", title: "Address", kind: "mono", value: address,
          cell: (one) => h("div", { class: "at" }, address(one), copyButton("address", address(one))) },
        { id: "holds", title: "Holds it", value: (one) => `${one.holds} ${one.reason}`,
          // Members that lack the document come first, because users look for them.
          order: (a, b) => Number(a.holds) - Number(b.holds) || collator.compare(a.name, b.name),
          cell: (one) => (one.holds ? state("yes", "ok") : h("div", { class: "stack" }, state("no", "warn"), h("span", { class: "sub" }, remote(one.reason)))) },
        ...(applied ? [{ id: "applied", title: "Applied", value: (one) => JSON.stringify(one.applied ?? null), cell: appliedCell }] : []),
      ],
    });
    table.update(found.results);
    this.place.replaceChildren(table.element);
  }
}
