// SPDX-License-Identifier: MIT
// Reads the server-sent events of /v1/watch with fetch(), because EventSource cannot send the token.

import { ApiError, open } from "./api.js";

// Milliseconds without any data after which the connection counts as dead. The agent sends a keep-alive every 15
// seconds.
const SILENCE = 40_000;
const LONGEST_LINE = 1 << 22;
const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;

// Passes each complete event to `onEvent(name, data)`.
export class Parser {
  constructor(onEvent) {
    this.onEvent = onEvent;
    this.rest = "";
    this.name = "";
    this.data = [];
  }

  feed(text) {
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop();
    if (this.rest.length > LONGEST_LINE) throw new Error("an event without an end");
    for (const line of lines) this.line(line.endsWith("\r") ? line.slice(0, -1) : line);
  }

  line(line) {
    if (line === "") {
      if (this.data.length) this.onEvent(this.name || "message", JSON.parse(this.data.join("\n")));
      this.name = "";
      this.data = [];
      return;
    }
    const colon = line.indexOf(":");
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") this.name = value;
    else if (field === "data") this.data.push(value);
  }
}

// Keeps one stream open until stop(). Calls `onState` with "live", "lost" (and the reason) or "denied".
export class Stream {
  constructor(onEvent, onState) {
    this.onEvent = onEvent;
    this.onState = onState;
    this.control = null;
    this.ended = false;
    this.wake = null;
  }

  async start() {
    let pause = FIRST_PAUSE;
    while (!this.ended) {
      try {
        await this.once(() => { pause = FIRST_PAUSE; });
      } catch (error) {
        if (this.ended) return;
        if (error instanceof ApiError && error.status === 401) {
          this.onState("denied");
          return;
        }
        this.onState("lost", error instanceof ApiError ? error.message : "");
      }
      await new Promise((resolve) => { this.wake = resolve; setTimeout(resolve, pause * (0.8 + 0.4 * Math.random())); });
      pause = Math.min(2 * pause, LONGEST_PAUSE);
    }
  }

  async once(opened) {
    const control = this.control = new AbortController();
    let timer = setTimeout(() => control.abort(), SILENCE);
    try {
      const response = await open("watch", { signal: control.signal, accept: "text/event-stream" });
      if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
        throw new ApiError(0, "no_stream", "this member has no event stream");
      }
      opened();
      this.onState("live");
      const parser = new Parser(this.onEvent);
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      for (;;) {
        const { done, value } = await reader.read();
        clearTimeout(timer);
        if (done) throw new ApiError(0, "ended", "the member ended the connection");
        timer = setTimeout(() => control.abort(), SILENCE);
        parser.feed(value);
      }
    } finally {
      clearTimeout(timer);
      control.abort();
    }
  }

  // Reconnects at once instead of after the pause, for example when the network is back.
  hurry() {
    this.wake?.();
  }

  stop() {
    this.ended = true;
    this.control?.abort();
    this.wake?.();
  }
}
