// SPDX-License-Identifier: MIT
// Buttons that copy a text exactly, including its invisible characters.

import { h, say, svg } from "./dom.js";

const SHOWN = 2_000;

// Copies without navigator.clipboard, which exists only in a secure context. The text is set in the copy event itself,
// because a text field would change line ends.
function copyByEvent(text) {
  let taken = false;
  const take = (event) => {
    event.clipboardData.setData("text/plain", text);
    event.preventDefault();
    taken = true;
  };
  const back = document.activeElement;
  const field = h("textarea", { class: "aside", tabindex: "-1", "aria-hidden": "true" }, "-");
  document.body.append(field);
  field.select();
  document.addEventListener("copy", take, { once: true, capture: true });
  try {
    document.execCommand("copy");
  } finally {
    document.removeEventListener("copy", take, { capture: true });
    field.remove();
    back?.focus({ preventScroll: true });
  }
  return taken;
}

// Copies the text. Returns whether the text is in the clipboard.
export async function copy(text) {
  try {
    if (navigator.clipboard) {
      await navigator.clipboard.writeText(text);
      return true;
    }
  } catch {
    // The browser refused, for example because the window has no focus. Try the copy event instead.
  }
  return copyByEvent(text);
}

function icon() {
  return svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true" },
    svg("rect", { x: 5.5, y: 5.5, width: 8, height: 8, rx: 1.5 }), svg("path", { d: "M10.5 3V2.5h-8v8H3" }),
    svg("path", { class: "tick", d: "M3 8.5l3.5 3.5L13 4.5" }));
}

// Creates a copy button. `what` names the text; with `words`, the button has a label instead of an icon.
export function copyButton(what, text, words) {
  let timer;
  const label = `Copy ${what}`;
  const button = h("button", {
    type: "button", class: words ? "quiet" : "copy", title: words ? null : label, "aria-label": words ? null : label,
    click: async () => {
      const done = await copy(text);
      say("");
      say(done ? `Copied: ${what}` : `The ${what} could not be copied`);
      button.classList.add(done ? "done" : "failed");
      if (words) button.textContent = done ? "Copied" : "Not copied";
      clearTimeout(timer);
      timer = setTimeout(() => {
        button.classList.remove("done", "failed");
        if (words) button.textContent = words;
      }, SHOWN);
    },
  }, words ?? icon());
  return button;
}
