// SPDX-License-Identifier: MIT
// The page: signs in, chooses the view that the address names, and tells how the connection is.

import { ApiError, get, token } from "./api.js";
import { OneDocument } from "./document.js";
import { Documents } from "./documents.js";
import { h, note, plain, remote, state } from "./dom.js";
import { Files } from "./files.js";
import { Fleet } from "./fleet.js";
import { address, clock } from "./format.js";
import { Live } from "./live.js";
import { Runs } from "./runs.js";
import { signIn } from "./signin.js";
import { Store } from "./store.js";
import { Trouble } from "./trouble.js";

const $ = (id) => document.getElementById(id);
const main = $("main");
// A connection that is back at once is not worth a word.
const PATIENCE = 1_500;
// Members up to which publishes are followed while another view is shown.
const FOLLOWED = 200;

let store = null;
let runs = null;
let trouble = null;
let views = {};
let view = null;
let warned = null;
let followed = false; // a link was clicked, which the address follows

function put(next) {
  view?.hide();
  view = next;
  main.replaceChildren(view.element);
  retitle();
  view.show();
}

// How much is wrong comes first: a tab shows little of its title.
function retitle() {
  const wrong = trouble?.found.length ? `(${trouble.found.length}) ` : "";
  const node = store?.status?.node;
  const who = node ? ` · ${plain(node.name || address(node), 40)}` : "";
  document.title = `${wrong}${plain(view?.title ?? "", 80)}${who} · XDP Gossip`;
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

function route() {
  if (!store) return;
  const [, name = "fleet", rest] = /^#\/([a-z]+)(?:\/(.+))?$/s.exec(location.hash) ?? [];
  const known = Object.hasOwn(views, name) ? name : "fleet";
  for (const link of document.querySelectorAll("#views a")) {
    if (link.dataset.view === known) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const what = rest ? decode(rest) : "";
  // No key ends with a slash: that is a prefix.
  const one = known === "documents" && what !== "" && !what.endsWith("/");
  const next = one ? new OneDocument(store, what) : views[known];
  const moved = view !== null && view !== next;
  // Who goes back, without following a link, goes on where they were.
  const back = moved && !followed && next.address === location.hash;
  followed = false;
  if (moved) view.scrolled = window.scrollY;
  next.address = location.hash;
  put(next);
  if (moved) {
    window.scrollTo(0, back ? next.scrolled : 0);
    main.focus({ preventScroll: true });
  }
  if (known === "documents" && what && !one && !back) views.documents.reveal(what);
  if (known === "fleet") views.fleet.choose(what);
}

function lost(now) {
  store.lost = now;
  if (trouble.update()) alarm();
}

function connection() {
  const { connection: state, why, heard } = store;
  const place = $("connection");
  const words = { connecting: "connecting", live: "live", lost: "no connection" };
  place.className = `link ${state}`;
  place.textContent = words[state];
  clearTimeout(warned);
  if (state !== "lost") {
    $("banner").hidden = true;
    lost(false);
    return;
  }
  warned = setTimeout(() => {
    lost(true);
    const old = heard ? ` What is shown is from ${clock(heard)}.` : "";
    const reason = why ? ` (${why})` : "";
    $("banner").replaceChildren(`The connection to this member is lost${reason}.${old} Trying again … `,
      h("button", { type: "button", click: () => store.stream.hurry() }, "Try now"));
    $("banner").hidden = false;
  }, PATIENCE);
}

function where() {
  const { status } = store;
  if (!status) return;
  $("where").replaceChildren(remote(status.cluster, null, 64), h("span", { class: "muted" }, " as seen by "),
    remote(status.node.name || address(status.node), null, 64));
}

// The way to what is wrong, from every view.
function alarm() {
  const place = $("alarm");
  place.className = `alarm ${trouble.kind}`;
  place.replaceChildren(state(trouble.summary || (trouble.kind === "ok" ? "nothing wrong" : "looking"), trouble.kind));
  retitle();
}

function leave() {
  store?.stop();
  runs?.stop();
  trouble?.stop();
  store = runs = trouble = null;
  clearTimeout(warned);
  $("top").hidden = $("banner").hidden = true;
}

function denied(message) {
  if (!store) return;
  leave();
  token.clear();
  put(signIn(message, begin));
}

function enter() {
  store = new Store();
  runs = new Runs(() => views.live.later());
  trouble = new Trouble(store);
  views = { fleet: new Fleet(store, trouble), documents: new Documents(store), live: new Live(store, runs), files: new Files(store) };
  store.onDenied = () => denied("The token is not accepted any more.");
  store.onPublished = (published) => {
    if (document.hidden) return;
    // Each step is an answer about every member: in a large fleet only for who looks at it.
    if (view === views.live || (store.nodes?.size ?? 0) <= FOLLOWED) runs.begin(published);
    else runs.pass();
  };
  store.subscribe((topics) => {
    if (topics.has("connection")) connection();
    if (topics.has("status")) where();
    if (["nodes", "status", "files", "documents"].some((topic) => topics.has(topic)) && trouble.update()) alarm();
    if (topics.has("status")) retitle();
    view?.update(topics);
  });
  $("top").hidden = false;
  $("signout").hidden = !token.get();
  store.start();
  connection();
  trouble.update();
  alarm();
  view = null;
  route();
}

// Sign in is needed where the member asks for a token: on TCP.
async function begin() {
  try {
    await get("status");
    enter();
  } catch (error) {
    if (error instanceof ApiError && error.status === 401) {
      const wrong = Boolean(token.get());
      token.clear();
      put(signIn(wrong ? "This token is not accepted." : "", begin));
      return;
    }
    main.replaceChildren(note("bad", "This member does not answer.", error.message),
      h("button", { type: "button", click: begin }, "Try again"));
  }
}

$("alarm").addEventListener("click", () => {
  // Where the address is the same already nothing else would happen.
  location.hash = "#/fleet";
  scrollTo(0, 0);
  trouble?.element.focus({ preventScroll: true });
});
$("signout").addEventListener("click", () => denied(""));
$("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener("click", (event) => {
  followed = Boolean(event.target.closest?.("a[href]"));
}, true);
history.scrollRestoration = "manual";
addEventListener("hashchange", route);
addEventListener("online", () => store?.stream.hurry());
addEventListener("keydown", (event) => {
  const typing = event.target instanceof HTMLInputElement;
  if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const filter = main.querySelector(".filter");
    if (filter) {
      event.preventDefault();
      filter.focus();
    }
  }
});
begin();
