// SPDX-License-Identifier: MIT
// Tracks publishes in progress: how many members hold and have applied a version, over the time since this page heard
// of it.

import { ask } from "./holders.js";
import { address } from "./format.js";

const KEPT = 8;
const AT_ONCE = 3;
const GIVE_UP = 120_000;
const PAUSE = 60;
const RETRY = 1_000;
const WAIT = 5;

const sleep = (time) => new Promise((resolve) => setTimeout(resolve, time));

class Run {
  constructor(document) {
    Object.assign(this, { document, key: document.key, version: document.version, deleted: document.deleted });
    this.began = performance.now();
    this.at = new Date();
    this.control = new AbortController();
    this.members = 0;
    this.lines = { held: [], applied: [] };
    // address -> { name, held, applied, state, error }; `held` and `applied` are times in seconds
    this.seen = new Map();
    this.applying = null; // whether any member renders a file from the document; null before the first answer
    this.outcome = { held: null, applied: null };
    this.state = "running";
    this.problem = "";
  }

  get seconds() {
    return ((this.ended ?? performance.now()) - this.began) / 1000;
  }

  count(line) {
    return this.lines[line].at(-1)?.count ?? 0;
  }

  end(state, problem = "") {
    if (this.ended) return;
    this.ended = performance.now();
    this.state = state;
    this.problem = problem;
    this.control.abort();
  }

  note(found, line) {
    const now = (performance.now() - this.began) / 1000;
    this.members = found.members;
    const steps = this.lines[line];
    if (steps.at(-1)?.count !== found.confirmed) steps.push({ at: now, count: found.confirmed });
    for (const one of found.results) {
      const key = address(one);
      const member = this.seen.get(key) ?? { addr: one.addr, port: one.port, name: one.name, held: null, applied: null, reason: "" };
      this.seen.set(key, member);
      if (one.holds) member.held ??= now;
      member.reason = one.holds ? "" : one.reason;
      if (!one.applied) continue;
      Object.assign(member, { state: one.applied.state, error: one.applied.error });
      if (one.applied.state === "applied" && one.applied.version === this.version) member.applied ??= now;
      if (one.applied.state === "failed") member.refused = one.applied.version === this.version || !one.applied.version;
    }
    if (line === "applied") this.applying = found.results.some((one) => one.applied && one.applied.state !== "none");
  }

  // Asks for an answer at the next step of progress, to avoid polling. Ends when no further step can come.
  async follow(line, changed) {
    let confirmed = 0;
    while (!this.ended) {
      const step = Math.max(1, Math.ceil(this.members / 40));
      const wait = this.members ? Math.min(this.members, confirmed + step) : 1;
      const query = { key: this.key, version: this.version, wait, timeout: WAIT, ...(this.deleted ? { deleted: "1" } : {}) };
      try {
        const { found, applied } = await ask(query, { signal: this.control.signal, applied: line === "applied" });
        if (this.ended) return;
        if (line === "applied" && !applied) {
          this.outcome.applied = "unknown";
          return;
        }
        this.note(found, line);
        this.problem = "";
        confirmed = found.confirmed;
        changed();
        if (confirmed >= found.members) {
          this.outcome[line] = "all";
          return;
        }
        const open = found.results.filter((one) => !one.holds || (one.applied && ["pending", "applied"].includes(one.applied.state) && one.applied.version !== this.version));
        if (line === "applied" && !open.length) {
          this.outcome.applied = "refused";
          return;
        }
      } catch (error) {
        if (this.ended) return;
        this.problem = error.message;
        changed();
        await sleep(RETRY);
      }
      if (performance.now() - this.began > GIVE_UP) {
        this.outcome[line] = "late";
        return;
      }
      await sleep(PAUSE);
    }
  }
}

export class Runs {
  constructor(changed) {
    this.changed = changed;
    this.all = [];
    this.skipped = 0;
    this.passed = 0;
  }

  // Counts a publish that is not tracked, because the user does not look at it.
  pass() {
    this.passed += 1;
    this.changed();
  }

  // Starts tracking a document that was published or deleted.
  begin(document) {
    for (const run of this.all) if (run.key === document.key && run.state === "running") run.end("superseded");
    const running = this.all.filter((run) => run.state === "running");
    if (running.length >= AT_ONCE) {
      // In a burst, only the newest publishes are tracked.
      running.at(-1).end("left");
      this.skipped += 1;
    }
    const run = new Run(document);
    this.all = [run, ...this.all].slice(0, KEPT);
    this.changed();
    this.run(run);
  }

  async run(run) {
    // No member renders a tombstone.
    if (run.deleted) run.outcome.applied = "unknown";
    const lines = run.deleted ? ["held"] : ["held", "applied"];
    await Promise.all(lines.map((line) => run.follow(line, this.changed)));
    const { held, applied } = run.outcome;
    if (held === "late" || applied === "late") run.end("late");
    else run.end(applied === "refused" ? "refused" : "done");
    this.changed();
  }

  stop() {
    this.all.forEach((run) => run.end("left"));
  }
}
