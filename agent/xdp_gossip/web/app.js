// SPDX-License-Identifier: MIT
// The page's main module: signs in, selects the view that the URL names, and shows the state of the connection.

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
// Milliseconds for which a lost connection is not reported, because it may be back at once.
const PATIENCE = 1_500;
// Most members for which publishes are tracked while another view is shown.
const FOLLOWED = 200;

let store = null;
let runs = null;
let trouble = null;
let views = {};
let view = null;
let warned = null;
let followed = false; // whether the current change of the URL comes from a clicked link

function put(next) {
  view?.hide();
  view = next;
  main.replaceChildren(view.element);
  retitle();
  view.show();
}

// The number of problems comes first in the title, because a tab shows only its beginning.
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
  // A key never ends with a slash, so a path that does is a prefix.
  const one = known === "documents" && what !== "" && !what.endsWith("/");
  const next = one ? new OneDocument(store, what) : views[known];
  const moved = view !== null && view !== next;
  // If the user goes back in the browser's history, without a link, the scroll position is restored.
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

// Draws the link to the problems, which every view shows.
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
    // Each step fetches an answer about every member, so in a large fleet publishes are tracked only in the live view.
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

// Starts the page. A sign-in is needed only if the member asks for a token, as it does on TCP.
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
  // If the URL is the same already, setting it has no effect, so the page also scrolls and sets the focus.
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
