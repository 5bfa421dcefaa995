// SPDX-License-Identifier: MIT
// The form that asks for the API's token.

import { token } from "./api.js";
import { h, note } from "./dom.js";

const LOCAL = /^(localhost|127\.|\[::1\])/;

export function signIn(message, done) {
  const field = h("input", {
    type: "password", id: "token", autocomplete: "off", spellcheck: "false", autocapitalize: "off", required: true,
    "aria-describedby": "tokenhelp",
  });
  const told = h("p", { class: "error", role: "alert" }, message);
  const submit = (event) => {
    event.preventDefault();
    const given = field.value.trim();
    if (!/^[\x21-\x7e]+$/.test(given)) {
      told.textContent = "Expected a token of printable ASCII characters without a space.";
      return;
    }
    token.set(given);
    done();
  };
  const clear = location.protocol === "http:" && !LOCAL.test(location.hostname);
  const element = h("form", { class: "signin", submit, novalidate: true },
    h("h1", null, "XDP Gossip"),
    h("label", { for: "token" }, "API token"), field,
    h("p", { class: "muted line", id: "tokenhelp" },
      "One of this agent's api.tokens, for which the right read is enough, or the content of its api.token_file. It is kept until this tab is closed, and sent to this member only."),
    told,
    clear && note("warn", "This connection is not encrypted.", "Whoever can listen to it learns the token. Use TLS, or a tunnel."),
    h("button", { type: "submit", class: "primary" }, "Sign in"));
  return { element, title: "Sign in", show: () => field.focus(), hide() {}, update() {} };
}
