// SPDX-License-Identifier: MIT
// What this member tells: lists read at first, then kept up to date by its event stream.

import { ApiError, get } from "./api.js";
import { WATCHED } from "./findings.js";
import { address, later } from "./format.js";
import { Stream } from "./stream.js";

const GATHER = 150;
const STATUS_EVERY = 15_000;
const SETTLE = 1_500;
const DOCUMENTS_EVERY = 60_000;
// Ages are only told by the list; a large one is not asked for often.
const filesEvery = (known) => Math.min(60_000, 5_000 + known * 25);
// Seconds that members may take to tell of their files.
const FILES_WAIT = 3;
// How long a counter that has grown is told of.
const GROWN = 300_000;
// Seconds between this clock and the cluster's that are worth a word.
const CLOCK = 5;
const nodesEvery = (known) => Math.min(60_000, 5_000 + known * 5);

export class Store {
  constructor() {
    this.connection = "connecting";
    this.why = "";
    this.heard = null; // when the last answer came
    this.status = null;
    this.nodes = null; // Map, null before the first answer
    this.nodesAt = 0;
    this.digest = "";
    this.documents = null; // Map
    this.files = null; // rendered files in trouble, of the whole fleet
    this.own = null; // the rendered files of this member
    this.behind = new Map(); // address -> { digest, since } of a node that shows other documents
    this.lost = false; // the connection has been lost for longer than a moment
    this.growth = new Map(); // counter -> { by, at }
    this.clockLimit = CLOCK;
    this.problems = {}; // list -> message
    this.onPublished = () => {};
    this.onDenied = () => {};
    this.views = new Set();
    this.changed = new Set();
    this.timers = [];
    this.soon = null;
    this.loads = new Map();
    this.since = null; // document changes heard while the list is on its way
    this.stream = new Stream((name, data) => this.event(name, data), (state, why) => this.state(state, why));
  }

  start() {
    this.stream.start();
    this.every(() => nodesEvery(this.nodes?.size ?? 0), () => this.loadNodes());
    this.every(() => DOCUMENTS_EVERY, () => this.loadDocuments());
    this.every(() => STATUS_EVERY, () => this.loadStatus());
    this.every(() => filesEvery(this.nodes?.size ?? 0), () => this.loadFiles());
  }

  stop() {
    this.stream.stop();
    this.timers.forEach((timer) => clearTimeout(timer.id));
    clearTimeout(this.soon);
    this.views.clear();
  }

  every(pause, work) {
    const timer = {};
    const next = () => {
      timer.id = setTimeout(async () => {
        if (!document.hidden && this.connection === "live") await work();
        next();
      }, pause());
    };
    this.timers.push(timer);
    next();
  }

  // `view(topics)` is called soon after something changed, with all that did.
  subscribe(view) {
    this.views.add(view);
    return () => this.views.delete(view);
  }

  notify(topic) {
    if (!this.changed.size) {
      setTimeout(() => {
        const topics = this.changed;
        this.changed = new Set();
        this.views.forEach((view) => view(topics));
      }, GATHER);
    }
    this.changed.add(topic);
  }

  state(state, why = "") {
    if (state === "denied") {
      this.onDenied();
      return;
    }
    this.connection = state;
    this.why = why;
    this.notify("connection");
  }

  event(name, data) {
    this.heard = new Date();
    if (name === "hello" || name === "resync") this.loadAll();
    else if (name === "change" && data.kind === "node" && data.node) this.nodeChanged(data.node);
    else if (name === "change" && data.kind === "document" && data.document) this.documentChanged(data);
  }

  nodeChanged(node) {
    if (!this.nodes) return;
    this.nodes.set(address(node), { ...node, at: performance.now() });
    this.notify("nodes");
  }

  documentChanged(change) {
    const { document } = change;
    this.since?.push(document);
    if (this.documents) {
      this.apply(document);
      this.notify("documents");
    }
    this.onPublished(document);
    // Who is in sync is told by the list of nodes only: read it when the change has had time to travel.
    this.soon ??= setTimeout(() => {
      this.soon = null;
      if (this.connection === "live") this.loadNodes();
    }, SETTLE + (this.nodes?.size ?? 0));
  }

  apply(document) {
    const held = this.documents.get(document.key);
    if (held && later(held.version, document.version)) return;
    if (document.deleted) this.documents.delete(document.key);
    else this.documents.set(document.key, document);
  }

  loadAll() {
    this.loadStatus();
    this.loadNodes();
    this.loadDocuments();
    this.loadFiles();
  }

  // One request for a list at a time; who asks meanwhile gets another one after it.
  load(what, work) {
    const running = this.loads.get(what);
    if (running) {
      running.again = true;
      return running.done;
    }
    const entry = { again: false };
    this.loads.set(what, entry);
    entry.done = (async () => {
      do {
        entry.again = false;
        try {
          await work();
          this.heard = new Date();
          delete this.problems[what];
        } catch (error) {
          if (error instanceof ApiError && error.status === 401) this.onDenied();
          this.problems[what] = error.message;
        }
        this.notify(what);
      } while (entry.again);
      this.loads.delete(what);
    })();
    return entry.done;
  }

  loadStatus() {
    return this.load("status", async () => {
      const before = this.status;
      this.status = await get("status");
      // A counter that stands still tells of what is over.
      if (before && before.uptime <= this.status.uptime) this.compare(before.counters, this.status.counters);
    });
  }

  loadNodes() {
    return this.load("nodes", async () => {
      // Not with an entity tag: that one ignores the ages, which are wanted here.
      const answer = await get("nodes", { query: { state: "all" } });
      this.nodes = new Map(answer.nodes.map((node) => [address(node), node]));
      this.nodesAt = performance.now();
      this.digest = answer.digest;
      this.lookWhoIsBehind();
    });
  }

  compare(before, after) {
    const now = performance.now();
    for (const name of WATCHED) {
      const by = (after[name] ?? 0) - (before[name] ?? 0);
      const last = this.growth.get(name);
      if (by > 0) this.growth.set(name, { by: by + (last && now - last.at < GROWN ? last.by : 0), at: now });
      else if (last && now - last.at >= GROWN) this.growth.delete(name);
    }
  }

  // By how much a counter has grown in the last minutes.
  grown(name) {
    return this.growth.get(name)?.by ?? 0;
  }

  // Milliseconds for which a node has shown the same other documents than this member, as far as this page has seen it. One
  // whose documents change is on its way: where somebody publishes all the time, no two nodes are ever the same.
  behindFor(node) {
    const entry = this.behind.get(address(node));
    return entry ? performance.now() - entry.since : 0;
  }

  lookWhoIsBehind() {
    const now = performance.now();
    for (const [key, node] of this.nodes) {
      if (node.digest === this.digest || !["alive", "suspect"].includes(node.state)) this.behind.delete(key);
      else if (this.behind.get(key)?.digest !== node.digest) this.behind.set(key, { digest: node.digest, since: now });
    }
    for (const key of this.behind.keys()) if (!this.nodes.has(key)) this.behind.delete(key);
  }

  loadFiles() {
    return this.load("files", async () => {
      this.own = (await get("rendered")).templates;
      try {
        this.files = await get("rendered/fleet", { query: { timeout: FILES_WAIT }, seconds: FILES_WAIT + 20 });
      } catch (error) {
        if (error.code !== "unsupported_operation") throw error;
        this.files = this.ownFiles();
      }
    });
  }

  // On a wire on which members cannot ask each other there are the files of this one.
  ownFiles() {
    const { node } = this.status ?? { node: {} };
    const files = this.own.map((one) => ({ ...one, state: one.drift ? "drifted" : one.state }))
      .filter((one) => ["failed", "drifted"].includes(one.state))
      .map(({ name, path, state, since, error, drift }) =>
        ({ addr: node.addr ?? "", port: node.port ?? 0, name: node.name ?? "", template: name, path, state, since, error: error || drift }));
    return { members: 1, answered: 1, templates: this.own.length, files, untold: 0, silent: [], alone: true };
  }

  loadDocuments() {
    return this.load("documents", async () => {
      this.since = [];
      try {
        const answer = await get("documents", { cache: "no-cache", seconds: 60 });
        this.documents = new Map(answer.documents.map((document) => [document.key, document]));
        // The list may be older than what was heard while it was on its way.
        this.since.forEach((document) => this.apply(document));
      } finally {
        this.since = null;
      }
    });
  }

  local() {
    return this.status?.node ?? null;
  }

  // Seconds since a node was heard, as of now.
  age(node) {
    return node.local ? 0 : node.last_heard + (performance.now() - (node.at ?? this.nodesAt)) / 1000;
  }
}
