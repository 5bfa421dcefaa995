// SPDX-License-Identifier: MIT
// The data of this member: lists that are fetched once and then kept up to date by the member's event stream.

import { ApiError, get } from "./api.js";
import { WATCHED } from "./findings.js";
import { address, later } from "./format.js";
import { Stream } from "./stream.js";

const GATHER = 150;
const STATUS_EVERY = 15_000;
const SETTLE = 1_500;
const DOCUMENTS_EVERY = 60_000;
// Only the list contains the ages of files, and a large list is fetched less often.
const filesEvery = (known) => Math.min(60_000, 5_000 + known * 25);
// Seconds that members have to answer about their files.
const FILES_WAIT = 3;
// Milliseconds for which the growth of a counter is reported.
const GROWN = 300_000;
// Seconds of difference between this clock and the cluster's that are reported.
const CLOCK = 5;
const nodesEvery = (known) => Math.min(60_000, 5_000 + known * 5);

export class Store {
  constructor() {
    this.connection = "connecting";
    this.why = "";
    this.heard = null; // time of the last answer
    this.status = null;
    this.filesDenied = false;
    this.nodes = null; // a Map; null before the first answer
    this.nodesAt = 0;
    this.digest = "";
    this.documents = null; // a Map; null before the first answer
    this.files = null; // the whole fleet's rendered files with problems
    this.own = null; // the rendered files of this member
    this.behind = new Map(); // address -> { digest, since } of each node whose documents differ
    this.lost = false; // whether the connection has been lost for a while
    this.growth = new Map(); // counter -> { by, at }
    this.clockLimit = CLOCK;
    this.problems = {}; // list -> error message
    this.onPublished = () => {};
    this.onDenied = () => {};
    this.views = new Set();
    this.changed = new Set();
    this.timers = [];
    this.soon = null;
    this.loads = new Map();
    this.since = null; // document changes that arrived while the list was being fetched
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

  // Registers `view(topics)`, which is called shortly after changes with the set of all changed topics.
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
    else if (name === "change" && data.kind === "node" && data.node) this.nodeChanged(data.node, data.event === "forgotten");
    else if (name === "change" && data.kind === "document" && data.document) this.documentChanged(data);
  }

  nodeChanged(node, forgotten) {
    if (!this.nodes) return;
    if (forgotten) this.nodes.delete(address(node));
    else this.nodes.set(address(node), { ...node, at: performance.now() });
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
    // Only the list of nodes shows which nodes are in sync, so it is fetched once the change has had time to spread.
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

  // Fetches a list, one request at a time. Calls during a request cause one more request after it.
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
      // Only growth is reported: a constant counter is about the past.
      if (before && before.uptime <= this.status.uptime) this.compare(before.counters, this.status.counters);
    });
  }

  loadNodes() {
    return this.load("nodes", async () => {
      // The request has no entity tag, because the tag does not change with the ages, which are needed here.
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

  // The growth of a counter within the last minutes.
  grown(name) {
    return this.growth.get(name)?.by ?? 0;
  }

  // Milliseconds for which a node has had the same documents digest, different from this member's, as seen by this
  // page. If the digest keeps changing, the node is catching up: with constant publishes, no two nodes are ever equal.
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
      // Each question that is denied is an audit record, so a denied question is not repeated.
      if (this.filesDenied) {
        this.files = this.ownFiles();
        return;
      }
      try {
        this.files = await get("rendered/fleet", { query: { timeout: FILES_WAIT }, seconds: FILES_WAIT + 20 });
      } catch (error) {
        // The errors of files may quote any document, so a token for some keys only may not ask for the files of others.
        if (!["unsupported_operation", "forbidden"].includes(error.code)) throw error;
        this.filesDenied = error.code === "forbidden";
        this.files = this.ownFiles();
      }
    });
  }

  // The rendered files of this member, with the text `alone` that says why there are no files of other members.
  ownFiles() {
    const why = this.filesDenied ? "This token may use some keys only" : "This wire has no question for the files of others";
    const alone = `${why}: those of this member.`;
    const { node } = this.status ?? { node: {} };
    const files = this.own.map((one) => ({ ...one, state: one.drift ? "drifted" : one.state }))
      .filter((one) => ["failed", "drifted"].includes(one.state))
      .map(({ name, path, state, since, error, drift }) =>
        ({ addr: node.addr ?? "", port: node.port ?? 0, name: node.name ?? "", template: name, path, state, since, error: error || drift }));
    return { members: 1, answered: 1, templates: this.own.length, files, untold: 0, silent: [], alone };
  }

  loadDocuments() {
    return this.load("documents", async () => {
      this.since = [];
      try {
        const answer = await get("documents", { cache: "no-cache", seconds: 60 });
        this.documents = new Map(answer.documents.map((document) => [document.key, document]));
        // Apply the changes that arrived during the request, because the list may be older.
        this.since.forEach((document) => this.apply(document));
      } finally {
        this.since = null;
      }
    });
  }

  local() {
    return this.status?.node ?? null;
  }

  // Seconds since a node was last heard.
  age(node) {
    return node.local ? 0 : node.last_heard + (performance.now() - (node.at ?? this.nodesAt)) / 1000;
  }
}
