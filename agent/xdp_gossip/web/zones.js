// SPDX-License-Identifier: MIT
// The zones of the fleet: how many nodes of each are present, and which zones are lost.

import { h, remote, state } from "./dom.js";
import { collator, count } from "./format.js";

// Number of zones that are shown at first.
const MOST = 12;

const present = (node) => node.state === "alive" || node.state === "suspect";

// The zones of `nodes`, each with `present` of `all` nodes; an empty list if no node has a zone. Nodes that left are not
// counted, because they left on purpose. The zone "" contains the nodes without a zone, and is never `lost`. Lost zones
// come first, then zones with absent nodes, then the others by name.
export function zonesOf(nodes) {
  const found = new Map();
  let some = false;
  for (const node of nodes) {
    const name = node.zone ?? "";
    some ||= name !== "";
    if (node.state === "left") continue;
    if (!found.has(name)) found.set(name, { name, present: 0, all: 0 });
    const zone = found.get(name);
    zone.all += 1;
    if (present(node)) zone.present += 1;
  }
  if (!some) return [];
  const zones = [...found.values()].map((zone) => ({ ...zone, lost: zone.name !== "" && zone.present === 0 }));
  const rank = (zone) => (zone.lost ? 0 : zone.present < zone.all ? 1 : 2);
  return zones.sort((a, b) => rank(a) - rank(b) || Number(a.name === "") - Number(b.name === "")
    || collator.compare(a.name, b.name));
}

// The overview of the zones. `shown()` returns the zone whose nodes the page shows, null for all; `choose(zone)` shows
// the nodes of a zone, or of all zones if `zone` is null.
export class Zones {
  constructor(shown, choose) {
    Object.assign(this, { shown, choose });
    this.all = false;
    this.list = h("ul", { class: "zones" });
    this.more = h("button", { type: "button", class: "quiet", hidden: true, click: () => this.showAll() });
    this.element = h("section", { class: "overview", "aria-labelledby": "zones-head", hidden: true },
      h("h2", { id: "zones-head" }, "Zones"), this.list, this.more);
    this.zones = [];
  }

  showAll() {
    this.all = true;
    this.draw(this.zones);
    // The button has disappeared, so move the focus to the first new zone.
    this.buttons()[MOST]?.focus();
  }

  buttons() {
    return [...this.list.querySelectorAll("button")];
  }

  draw(zones) {
    this.zones = zones;
    const chosen = this.shown();
    const text = JSON.stringify([zones, chosen, this.all]);
    if (text === this.drawn) return;
    this.drawn = text;
    this.element.hidden = !zones.length;
    const listed = this.all ? zones : zones.filter((zone, index) => index < MOST || zone.name === chosen);
    // The order may change, so the focus stays at the zone, not at the place.
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.zone : null;
    this.list.replaceChildren(...listed.map((zone) => h("li", null, this.entry(zone, zone.name === chosen))));
    if (focused !== null) this.buttons().find((one) => one.dataset.zone === focused)?.focus({ preventScroll: true });
    this.more.hidden = listed.length === zones.length;
    this.more.textContent = `Show all ${count(zones.length)} zones`;
  }

  entry(zone, chosen) {
    const kind = zone.lost ? "bad" : zone.present < zone.all ? "warn" : "ok";
    const name = zone.name ? remote(zone.name, { class: "name" }, 64) : h("span", { class: "name muted" }, "no zone");
    return h("button", {
      type: "button", class: `zone ${kind}`, "data-zone": zone.name, "aria-pressed": String(chosen),
      click: () => this.choose(chosen ? null : zone.name),
    }, name, " ", state(`${zone.lost ? "lost: " : ""}${count(zone.present)} of ${count(zone.all)} present`, kind));
  }
}
