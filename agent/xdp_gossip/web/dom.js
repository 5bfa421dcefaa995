// SPDX-License-Identifier: MIT
// Creates elements from text only: this page never turns text into markup.

const SVG = "http://www.w3.org/2000/svg";

// Characters that are invisible, or that change the direction or look of the text around them: controls, format
// characters, fillers, unassigned and private ones. They are shown by name.
const UNSEEN = /[\p{Cc}\p{Cf}\p{Cn}\p{Co}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u2800]/gu;
// In a key, every character counts, so keys also show unusual spaces and combining marks without a base character.
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

// Prepares remote text for one line: invisible characters are replaced by names, and a long text is cut with a note of
// its length.
export function plain(text, most = 600) {
  return cut(text, most).replace(UNSEEN, naming);
}

// Prepares remote text of several lines: as plain(), but line feeds and tabs are kept and nothing is cut.
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

// Creates an HTML element: properties that are functions become event listeners, and text children stay text.
export function h(tag, properties, ...children) {
  return fill(document.createElement(tag), properties, children);
}

export function svg(tag, properties, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

// Splits text into nodes. Names of invisible characters get their own element, so that written text cannot imitate
// them.
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

// Remote text in a <bdi> element, so that its text direction does not affect its surroundings.
export function remote(text, properties, most = 600) {
  return h("bdi", properties, marked(cut(text, most), UNSEEN));
}

// A key, or a part of one, with all invisible characters shown by name.
export function exact(key, properties) {
  return h("bdi", properties, marked(String(key), UNSEEN_IN_KEY));
}

// Whether a key contains characters that cannot be seen.
export function hasUnseen(key) {
  return String(key).search(UNSEEN_IN_KEY) >= 0;
}

// Announces a text to screen readers.
export function say(text) {
  const place = document.getElementById("said");
  if (place.textContent !== text) place.textContent = text;
}

// A state as a word with a mark, so that it does not depend on colour alone.
export function state(word, kind) {
  return h("span", { class: `state ${kind}` }, h("span", { class: "mark", "aria-hidden": "true" }), word);
}

// A message that is shown in place of content.
export function note(kind, title, ...more) {
  return h("div", { class: `note ${kind}` }, h("p", { class: "title" }, title), more.map((line) => h("p", null, line)));
}
