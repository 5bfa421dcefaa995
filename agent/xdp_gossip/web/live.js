// SPDX-License-Identifier: MIT
// The view of publishes in progress: a plot of the selected one, and a list of the last few.

import { documentLink, version } from "./documents.js";
import { exact, h, note, remote, state } from "./dom.js";
import { name } from "./fleet.js";
import { address, author, clock, count, duration, plural } from "./format.js";
import { plot, summary } from "./plot.js";
import { Table } from "./table.js";

const STATES = {
  running: ["on its way", "warn"],
  done: ["arrived everywhere", "ok"],
  refused: ["refused by some", "bad"],
  superseded: ["superseded", "off"],
  late: ["not everywhere after 2 min", "bad"],
  left: ["no longer followed", "off"],
};

const ALL = 1e9;
const moment = (at) => (at === null ? "–" : duration(at));

export class Live {
  constructor(store, runs) {
    Object.assign(this, { store, runs, title: "Live", chosen: null });
    this.chart = h("div", { class: "chart" });
    this.head = h("div", { class: "runhead" });
    this.told = h("p", { class: "line", role: "status" });
    this.legend = h("p", { class: "legend" });
    this.list = h("ol", { class: "runs" });
    this.skipped = h("p", { class: "muted line" });
    this.table = new Table({
      label: "Members",
      noun: "member",
      key: address,
      sort: "held",
      search: (one) => `${one.name} ${address(one)} ${one.state ?? ""} ${one.reason}`,
      empty: () => note("", "No member has answered yet."),
      columns: [
        { id: "name", title: "Name", kind: "main", value: (one) => one.name, cell: name },
        { id: "address", title: "Address", kind: "mono", value: address },
        { id: "held", title: "Held after", kind: "number", value: (one) => moment(one.held), order: (a, b) => (b.held ?? ALL) - (a.held ?? ALL) },
        { id: "applied", title: "Applied after", kind: "number", value: (one) => (one.refused ? "refused" : moment(one.applied)),
          cell: (one) => (one.refused ? state("refused", "bad") : moment(one.applied)), order: (a, b) => (b.applied ?? ALL) - (a.applied ?? ALL) },
        { id: "remark", title: "Remark", kind: "wide", value: (one) => one.reason || one.error || (one.state === "none" ? "no template" : one.state ?? ""),
          cell: (one) => remote(one.reason || one.error || (one.state === "none" ? "no template" : one.state ?? "")) },
      ],
    });
    this.one = h("div", { hidden: true }, this.head, this.told, this.chart, this.legend, this.table.element);
    this.none = note("", "Nothing was published since this page was opened.",
      "The next publish or deletion, through whichever member, is followed here until all members hold it.");
    this.element = h("section", { "aria-label": "Live" }, h("h1", null, "Live"), this.none,
      h("div", { class: "split" }, this.one, h("div", null, this.list, this.skipped)));
    this.size = new ResizeObserver(() => this.later());
  }

  show() {
    this.size.observe(this.chart);
    this.clock = setInterval(() => { if (this.run()?.state === "running") this.draw(); }, 250);
    this.draw();
  }

  hide() {
    this.size.disconnect();
    clearInterval(this.clock);
  }

  update() {}

  // Schedules a redraw, at most one per 100 ms.
  later() {
    this.timer ??= setTimeout(() => {
      this.timer = null;
      if (this.element.isConnected) this.draw();
    }, 100);
  }

  run() {
    return this.runs.all.find((run) => run === this.chosen) ?? this.runs.all[0];
  }

  draw() {
    const run = this.run();
    this.none.hidden = Boolean(run);
    this.one.hidden = !run;
    this.drawList(run);
    if (!run) return;
    const [word, kind] = STATES[run.state];
    const text = JSON.stringify([run.key, run.version, run.state, run.problem]);
    if (this.headed !== text) {
      this.headed = text;
      this.head.replaceChildren(
        h("h2", { class: "mono" }, h("a", { href: documentLink(run.key) }, exact(run.key))),
        h("p", { class: "line" }, state(word, kind), run.deleted && [" ", h("span", { class: "tag" }, "deletion")], " ",
          version(run.version), " ", remote(author(run.document), { class: "muted" }, 120)));
      if (run.problem) this.head.append(note("warn", "The last question was not answered.", run.problem));
    }
    const told = run.members ? `${summary(run)}.` : "Asking …";
    if (this.told.textContent !== told) this.told.textContent = told;
    const width = Math.floor(this.chart.clientWidth);
    if (width > 100) this.chart.replaceChildren(plot(run, width));
    this.legend.replaceChildren(h("span", { class: "key held" }, run.deleted ? "know of the deletion" : "hold it"),
      run.applying ? h("span", { class: "key applied" }, "hold and applied it, or need not") : "",
      run.applying === false ? h("span", { class: "muted" }, "no member renders a file from it") : "");
    this.table.update([...run.seen.values()]);
  }

  drawList(chosen) {
    const text = JSON.stringify(this.runs.all.map((run) => [run.version, run.key, run.state, run.count("held"), run.members, run === chosen]));
    if (text !== this.listed) {
      this.listed = text;
      const focused = [...this.list.querySelectorAll("button")].indexOf(document.activeElement);
      this.list.replaceChildren(...this.runs.all.map((run) => h("li", null, h("button", {
        type: "button", class: "run", "aria-pressed": String(run === chosen),
        click: () => {
          this.chosen = run;
          this.draw();
        },
      }, h("span", { class: "mono" }, exact(run.key)),
      h("span", { class: "sub" }, `${clock(run.at)} · ${count(run.count("held"))}/${count(run.members)}`, " ", state(...STATES[run.state]))))));
      if (focused >= 0) this.list.querySelectorAll("button")[focused]?.focus();
    }
    const { skipped, passed } = this.runs;
    const told = [skipped && `${plural(skipped, "publish", "publishes")} came too fast to be followed to the end.`,
      passed && `${plural(passed, "publish", "publishes")} came while another view was shown; in a fleet of this size they are followed only here.`];
    this.skipped.textContent = told.filter(Boolean).join(" ");
  }
}
