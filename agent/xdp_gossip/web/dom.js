// SPDX-License-Identifier: MIT
// Elements from text only: nothing in this page ever turns text into markup.

const SVG = "http://www.w3.org/2000/svg";

// Controls, and what changes the direction or the look of text around it without being seen: shown, not obeyed.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

function named(character) {
  return `⟨U+${character.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

// Remote text for a line: what is invisible is named, what is endless is cut, and the cut is told.
export function plain(text, most = 600) {
  const value = String(text ?? "");
  const cut = value.length > most ? `${value.slice(0, most)} … (${value.length.toLocaleString("en")} characters)` : value;
  return cut.replace(/[\n\t]/g, named).replace(HIDDEN, named);
}

// The same for text of several lines, which keeps its line feeds and tabs.
export function plainLines(text) {
  return String(text).replace(HIDDEN, named);
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

// Remote text, whose direction must not reach beyond it.
export function remote(text, properties, most) {
  return h("bdi", properties, plain(text, most));
}

// A word for a state, with a mark that does not rely on colour.
export function state(word, kind) {
  return h("span", { class: `state ${kind}` }, h("span", { class: "mark", "aria-hidden": "true" }), word);
}

// A page's message in place of content.
export function note(kind, title, ...more) {
  return h("div", { class: `note ${kind}` }, h("p", { class: "title" }, title), more.map((line) => h("p", null, line)));
}
