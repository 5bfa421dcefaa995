// SPDX-License-Identifier: MIT
// Formats values for people.

const UNITS = ["B", "KiB", "MiB", "GiB"];

export const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

export function count(number) {
  return number.toLocaleString("en");
}

// Who is responsible for a version of a document: its signer, otherwise its author; "" if there is neither.
export function author(document) {
  const by = document.signed_by;
  if (!by) return document.author;
  return `signed by ${by.signer ?? by.key}${by.withdrawn ? " (withdrawn)" : ""}`;
}

export function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

export function bytes(size) {
  let unit = 0;
  let value = size;
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${unit && value < 100 ? value.toFixed(1) : Math.round(value)} ${UNITS[unit]}`;
}

// A duration in seconds, with at most two significant digits.
export function duration(seconds) {
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.round(seconds / 3600)} h`;
  return `${Math.round(seconds / 86400)} d`;
}

const pad = (number) => String(number).padStart(2, "0");

// The local date and time of an RFC 3339 text; the text itself if it is not a time.
export function moment(text) {
  const date = new Date(text);
  if (Number.isNaN(date.getTime())) return String(text);
  const day = `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())}`;
  return `${day} ${clock(date)}`;
}

export function clock(date) {
  return `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
}

export function address(node) {
  return node.addr.includes(":") ? `[${node.addr}]:${node.port}` : `${node.addr}:${node.port}`;
}

// Whether one document version is later than another: its time stamp has a fixed width, and the origin decides between
// equal ones.
export function later(version, than) {
  return version > than;
}
