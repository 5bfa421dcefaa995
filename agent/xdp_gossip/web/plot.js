// SPDX-License-Identifier: MIT
// Plots one publish: the number of members over time, with one line for those that hold it and one for those that
// applied it.

import { svg } from "./dom.js";
import { count, duration } from "./format.js";

const HEIGHT = 220;
const LEFT = 44;
const RIGHT = 16;
const TOP = 14;
const BOTTOM = 28;

// Tick positions at round numbers: at most `most` of them up to `end`.
function ticks(end, most) {
  const rough = end / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
  const found = [];
  for (let number = 0; number * step <= end * 1.0001; number += 1) found.push(number * step);
  return found;
}

function stairs(steps, end, x, y) {
  let path = `M${x(0)} ${y(0)}`;
  for (const { at, count: height } of steps) path += `H${x(at).toFixed(1)}V${y(height).toFixed(1)}`;
  return `${path}H${x(end).toFixed(1)}`;
}

export function summary(run) {
  const parts = [`${count(run.count("held"))} of ${count(run.members)} hold it`];
  if (run.applying) parts.push(`${count(run.count("applied"))} applied it`);
  const last = Math.max(run.lines.held.at(-1)?.at ?? 0, run.applying ? run.lines.applied.at(-1)?.at ?? 0 : 0);
  return `${parts.join(", ")}, after ${duration(run.state === "running" ? run.seconds : last)}`;
}

export function plot(run, width) {
  const last = Math.max(...Object.values(run.lines).map((steps) => steps.at(-1)?.at ?? 0));
  const end = Math.max(0.1, (run.state === "running" ? run.seconds : last) * 1.08);
  const most = Math.max(1, run.members);
  const x = (at) => LEFT + (at / end) * (width - LEFT - RIGHT);
  const y = (height) => TOP + (1 - height / most) * (HEIGHT - TOP - BOTTOM);
  const levels = most <= 4 ? Array.from({ length: most + 1 }, (_, number) => number) : [0, Math.round(most / 2), most];
  const parts = [];
  for (const level of levels) {
    parts.push(svg("line", { class: level === most ? "grid all" : "grid", x1: LEFT, x2: width - RIGHT, y1: y(level), y2: y(level) }));
    parts.push(svg("text", { class: "tick", x: LEFT - 8, y: y(level) + 4, "text-anchor": "end" }, count(level)));
  }
  for (const at of ticks(end, Math.max(2, Math.min(8, Math.floor(width / 110))))) {
    parts.push(svg("line", { class: "grid", x1: x(at), x2: x(at), y1: HEIGHT - BOTTOM, y2: HEIGHT - BOTTOM + 4 }));
    parts.push(svg("text", { class: "tick", x: x(at), y: HEIGHT - 8, "text-anchor": "middle" }, at ? duration(at) : "heard"));
  }
  for (const line of ["applied", "held"]) {
    if (line === "applied" && !run.applying) continue;
    const steps = run.lines[line];
    if (!steps.length) continue;
    parts.push(svg("path", { class: `way ${line}`, d: stairs(steps, end, x, y) }));
    const dots = steps.length <= 60 ? steps : steps.slice(-1);
    parts.push(...dots.map((one) => svg("circle", { class: `dot ${line}`, cx: x(one.at), cy: y(one.count), r: 3 })));
  }
  return svg("svg", {
    class: "plot", role: "img", width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`,
    "aria-label": `Members over time: ${summary(run)}`,
  }, parts);
}
