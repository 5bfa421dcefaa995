// SPDX-License-Identifier: MIT
// Elements from text only: nothing in this page ever turns text into markup.

const SVG = "http://www.w3.org/2000/svg";

// What is not seen, or changes the direction or the look of text around it: controls, format characters, fillers,
// unassigned and private ones. Shown, not obeyed.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cn}\p{Co}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/gu;
// In a key every character counts: also spaces that look like none or like another, and marks with nothing to sit on.
const UNSEEN_IN_KEY = new RegExp(`${UNSEEN.source}|[\\u00a0\\u1680\\u2000-\\u200a\\u202f\\u205f\\u3000]`
  + "|^ +| +$| {2,}|(?<=/) +| +(?=/)|(?<=^|/)\\p{M}+", "gu");

function named(character) {
  return character === " " ? "␣" : `⟨U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

const naming = (found) => [...found].map(named).join("");

function cut(text, most) {
  const value = String(text ?? "");
  return value.length > most ? `${value.slice(0, most)} … (${value.length.toLocaleString("en")} characters)` : value;
}

// Remote text for a line: what is invisible is named, what is endless is cut, and the cut is told.
export function plain(text, most = 600) {
  return cut(text, most).replace(UNSEEN, naming);
}

// The same for text of several lines, which keeps its line feeds and tabs.
export function plainLines(text) {
  return String(text).replace(UNSEEN, (found) => (found === "\n" || found === "\t" ? found : naming(found)));
}

function fill(element, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// An element: functions among the properties are event listeners, children that are text stay text.
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

// Text as nodes, with what is invisible named and marked, so that nobody can write such a name by hand.
function marked(text, pattern) {
  const parts = [];
  let from = 0;
  for (const found of text.matchAll(pattern)) {
    if (found.index > from) parts.push(text.slice(from, found.index));
    parts.push(h("span", { class: "unseen" }, naming(found[0])));
    from = found.index + found[0].length;
  }
  if (from < text.length) parts.push(text.slice(from));
  return parts;
}

// Remote text, whose direction must not reach beyond it.
export function remote(text, properties, most = 600) {
  return h("bdi", properties, marked(cut(text, most), UNSEEN));
}

// A key, or a part of one.
export function exact(key, properties) {
  return h("bdi", properties, marked(String(key), UNSEEN_IN_KEY));
}

// Whether a key has something in it that cannot be seen.
export function hasUnseen(key) {
  return String(key).search(UNSEEN_IN_KEY) >= 0;
}

// Tells those who do not see the page.
export function say(text) {
  const place = document.getElementById("said");
  if (place.textContent !== text) place.textContent = text;
}

// A word for a state, with a mark that does not rely on colour.
export function state(word, kind) {
  return h("span", { class: `state ${kind}` }, h("span", { class: "mark", "aria-hidden": "true" }), word);
}

// A page's message in place of content.
export function note(kind, title, ...more) {
  return h("div", { class: `note ${kind}` }, h("p", { class: "title" }, title), more.map((line) => h("p", null, line)));
}
