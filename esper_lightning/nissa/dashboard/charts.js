// Curves over time, and the lives of slots below them.

import { patterns, path, seedName, svg, ticks, STAGES } from "./drawing.js";

const AXIS = 26;
const LANE = 44;
const SEDIMENT = 4;
const BLOCK = 18;
const BODY = 15;
const MOST_LAYERS = 8;

/** The time axis that all figures share: which epochs are shown, and which one is pointed at. */
export class TimeAxis {
  constructor(changed) {
    this.changed = changed;
    this.full = [0, 1];
    this.shown = null;
    this.cursor = null;
  }

  get domain() { return this.shown ?? this.full; }

  setFull(low, high) { this.full = [low, Math.max(high, low + 1)]; }

  point(time) {
    const at = time === null ? null : Math.min(Math.max(time, this.full[0]), this.full[1]);
    if (at !== this.cursor) { this.cursor = at; this.changed("cursor"); }
  }

  zoom(by, around = null) {
    const [low, high] = this.domain;
    const middle = around ?? this.cursor ?? (low + high) / 2;
    const span = Math.min(this.full[1] - this.full[0], Math.max(2, (high - low) * by));
    this.show(middle - (span * (middle - low)) / (high - low), span);
  }

  pan(by) { const [low, high] = this.domain; this.show(low + by, high - low); }

  show(low, span) {
    const [first, last] = this.full;
    if (span >= last - first) this.shown = null;
    else { const from = Math.min(Math.max(low, first), last - span); this.shown = [from, from + span]; }
    this.changed("view");
  }

  all() { this.shown = null; this.changed("view"); }
}

/** A place for curves: pixels of times and values. */
function place(axis, width, height, left, right, top = 12) {
  const [low, high] = axis.domain;
  const x = (time) => left + ((time - low) / (high - low)) * (width - left - right);
  const time = (at) => low + ((at - left) / (width - left - right)) * (high - low);
  return { x, time, left, right: width - right, top, bottom: height, width };
}

/** The values that are worth the room: a first steep climb may be cut off at the bottom. */
function range(series, domain, zero) {
  const seen = [];
  for (const each of series) {
    each.times.forEach((time, i) => { const v = each.values[i]; if (v !== null && v !== undefined && time >= domain[0] && time <= domain[1]) seen.push(v); });
  }
  if (!seen.length) return [0, 1];
  seen.sort((a, b) => a - b);
  const high = seen.at(-1);
  const steep = zero ? 0 : seen[Math.floor(seen.length * (seen.length > 20 ? 0.12 : 0))];
  const room = (high - steep) * 0.08 || Math.abs(high) * 0.05 || 1;
  return [zero ? 0 : steep - room, high + room];
}

/** Curves into ``group``; returns the pixel of a value. */
function curves(group, at, series, { format, zero = false, domain, ends = true }) {
  const [low, high] = range(series, domain, zero);
  const y = (value) => at.bottom - ((value - low) / (high - low)) * (at.bottom - at.top);
  for (const tick of ticks(low, high, (at.bottom - at.top) / 55)) {
    group.append(svg("line", { class: "grid", x1: at.left, x2: at.right, y1: y(tick), y2: y(tick) }));
    group.append(svg("text", { class: "tick", x: at.left - 8, y: y(tick) + 3.5, "text-anchor": "end" }, format(tick)));
  }
  const clip = `clip-${Math.random().toString(36).slice(2)}`;
  group.append(svg("clipPath", { id: clip }, svg("rect", { x: at.left, y: at.top - 8, width: Math.max(0, at.right - at.left), height: at.bottom - at.top + 8 })));
  const drawn = svg("g", { "clip-path": `url(#${clip})` });
  group.append(drawn);
  const labels = [];
  for (const each of [...series].reverse()) {
    const points = each.times.map((time, i) => (each.values[i] === null || each.values[i] === undefined ? null : [at.x(time), y(each.values[i])]));
    const there = points.filter((point) => point !== null);
    if (!there.length) continue;
    if (each.area) drawn.append(svg("path", { class: `area ${each.look}`, d: `${path(there)}L${there.at(-1)[0].toFixed(1)} ${at.bottom}L${there[0][0].toFixed(1)} ${at.bottom}Z` }));
    drawn.append(svg("path", { class: `curve ${each.look}`, d: path(points) }));
    const last = there.filter((point) => point[0] <= at.right + 1).at(-1);
    if (last && last[0] >= at.left - 1) {
      if (each.look === "main") group.append(svg("circle", { class: `dot ${each.look}`, cx: last[0], cy: last[1], r: 3.5 }));
      labels.push({ x: last[0] + 9, y: last[1], text: cut(each.end, Math.floor((at.width - last[0] - 9) / 6.8)), look: each.look });
    }
  }
  if (ends) spread(labels, at).forEach((label) => group.append(svg("text", { class: `end ${label.look}`, x: label.x, y: label.y + 4 }, label.text)));
  return y;
}

/** Labels moved apart so that none lies on another. */
function spread(labels, at) {
  const placed = [];
  for (const label of labels.sort((a, b) => a.y - b.y)) {
    const beside = placed.filter((each) => each.x < label.x + 7 * label.text.length && label.x < each.x + 7 * each.text.length);
    label.y = Math.min(at.bottom, Math.max(label.y, ...beside.map((each) => each.y + 14)));
    placed.push(label);
  }
  return labels;
}

function timeScale(group, at, axis, y, text = "epoch") {
  const [low, high] = axis.domain;
  for (const tick of ticks(low, high, (at.right - at.left) / 80, true)) {
    group.append(svg("text", { class: "tick", x: at.x(tick), y: y + 17, "text-anchor": "middle" }, String(tick)));
  }
  group.append(svg("text", { class: "tick unit", x: at.right + 14, y: y + 17 }, text));
}

function cursorLine(group, at, axis, bottom) {
  if (axis.cursor === null) return;
  const x = at.x(axis.cursor);
  if (x < at.left - 1 || x > at.right + 1) return;
  group.append(svg("line", { class: "cursor", x1: x, x2: x, y1: at.top - 8, y2: bottom }));
}

/** A figure of curves alone. */
export function chart(box, axis, series, options) {
  const width = Math.max(240, box.clientWidth);
  const height = options.height ?? 150;
  const at = place(axis, width, height - AXIS, 46, options.room ?? 70);
  const figure = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": options.label });
  curves(figure, at, series, { ...options, domain: axis.domain });
  timeScale(figure, at, axis, height - AXIS);
  cursorLine(figure, at, axis, height - AXIS);
  box.replaceChildren(figure);
  return at;
}

/** The growth figure: curves with graft marks, and the lanes of slots below. */
export function growth(box, axis, { series, lanes, format, label, end, live }) {
  const future = live ? end : null;
  const width = Math.max(280, box.clientWidth);
  const narrow = width < 620;
  const left = narrow ? 46 : 112;
  const curveHeight = narrow ? 190 : 250;
  const layers = Math.max(1, ...lanes.map((each) => Math.min(MOST_LAYERS, each.fossils.length)));
  const lane = LANE + layers * SEDIMENT + (narrow ? 14 : 0);
  const at = place(axis, width, curveHeight, left, narrow ? 48 : 104);
  const lanesTop = curveHeight + 14;
  const bottom = lanesTop + lanes.length * lane;
  const height = bottom + AXIS;
  const figure = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const { defs, fill } = patterns();
  figure.append(defs);
  if (future !== null && axis.domain[1] > future) {
    const from = Math.max(at.left, at.x(future));
    figure.append(svg("rect", { class: "future", x: from, y: at.top - 8, width: Math.max(0, at.right - from), height: bottom - at.top + 8, rx: 4 }));
  }
  grafts(figure, at, lanes, bottom);
  const y = curves(figure, at, series, { format, domain: axis.domain, ends: !narrow });
  graftMarks(figure, at, series[0], lanes, y);
  lanes.forEach((each, i) => drawLane(figure, at, each, lanesTop + i * lane, { narrow, fill, axis, lane, end, last: i === lanes.length - 1 }));
  timeScale(figure, at, axis, bottom);
  cursorLine(figure, at, axis, bottom);
  box.replaceChildren(figure);
  return { at, laneAt: (pixel) => { const i = Math.floor((pixel - lanesTop) / lane); return i >= 0 && i < lanes.length ? lanes[i] : null; } };
}

function graftTimes(lanes) {
  const times = new Map();
  for (const lane of lanes) for (const mark of lane.marks) if (mark.fate === "fossilized") times.set(mark.time, (times.get(mark.time) ?? 0) + 1);
  return times;
}

const within = (at, x) => x >= at.left - 1 && x <= at.right + 1;

function grafts(figure, at, lanes, bottom) {
  for (const time of graftTimes(lanes).keys()) {
    const x = at.x(time);
    if (within(at, x)) figure.append(svg("line", { class: "graft", x1: x, x2: x, y1: at.top - 8, y2: bottom }));
  }
}

function graftMarks(figure, at, main, lanes, y) {
  if (!main) return;
  for (const [time, count] of graftTimes(lanes)) {
    const x = at.x(time);
    let i = main.times.findLastIndex((each) => each <= time + 1e-9);
    while (i > 0 && (main.values[i] === null || main.values[i] === undefined)) i -= 1;
    if (i < 0 || main.values[i] === null || main.values[i] === undefined || !within(at, x)) continue;
    const at_y = Math.min(Math.max(y(main.values[i]), at.top), at.bottom);
    figure.append(diamond(x, at_y, count > 1 ? 7.5 : 6));
    if (count > 1) figure.append(svg("text", { class: "graft-count", x, y: at_y - 12, "text-anchor": "middle" }, `+${count}`));
  }
}

const diamond = (x, y, r) => svg("path", { class: "diamond", d: `M${x} ${y - r}L${x + r} ${y}L${x} ${y + r}L${x - r} ${y}Z` });

function drawLane(figure, at, lane, top, { narrow, fill, axis, lane: height, end, last }) {
  const head = narrow ? 16 : 0;
  const blockTop = top + head + (narrow ? 14 : 16);
  const middle = blockTop + BLOCK / 2;
  const [low, high] = axis.domain;
  const name = narrow ? lane.slot : cut(lane.slot, 17);
  figure.append(svg("text", { class: "lane-name", x: narrow ? at.left : at.left - 12, y: narrow ? top + 14 : middle + 4, "text-anchor": narrow ? "start" : "end" }, name));
  const group = svg("g", { class: "lane" });
  figure.append(group);
  if (!last) group.append(svg("line", { class: "lane-rule", x1: narrow ? at.left : 0, x2: at.right, y1: top + height, y2: top + height }));
  for (const span of lane.spans) {
    if (span.end <= low || span.start >= high) continue;
    const x = at.x(Math.max(span.start, low));
    const width = Math.max(1, at.x(Math.min(span.end, high)) - x);
    drawSpan(group, at, span, { x, width, blockTop, middle, fill, axis });
  }
  lane.fossils.slice(0, MOST_LAYERS).forEach((fossil, i) => {
    const from = Math.max(at.left, at.x(fossil.time));
    const to = Math.min(at.right, at.x(end));
    if (from < to) group.append(svg("rect", { class: "sediment", x: from, y: blockTop + BLOCK + 3 + i * SEDIMENT, width: to - from, height: 3, rx: 1.5 }));
  });
  names(group, at, lane, blockTop, axis);
  for (const mark of lane.marks) {
    const x = at.x(mark.time);
    if (!within(at, x)) continue;
    if (mark.fate === "planted") group.append(svg("circle", { class: "planted", cx: x, cy: middle, r: 4 }));
    else if (mark.fate === "fossilized") group.append(diamond(x, middle, 7));
    else group.append(svg("path", { class: "cross", d: `M${x - 5} ${middle - 5}L${x + 5} ${middle + 5}M${x + 5} ${middle - 5}L${x - 5} ${middle + 5}` }));
  }
}

function drawSpan(group, at, span, { x, width, blockTop, middle, fill, axis }) {
  const rest = ["dormant", "unknown", "fossilized", "terminated"].includes(span.stage);
  if (rest) {
    group.append(svg("line", { class: `rest s-${span.stage}`, x1: x, x2: x + width, y1: middle, y2: middle }));
    return;
  }
  const gap = width > 4 ? 0.5 : 0;
  group.append(svg("rect", { class: `span s-${span.stage}`, x: x + gap, y: blockTop, width: width - 2 * gap, height: BLOCK, rx: 3, fill: span.stage === "blending" ? null : fill(span.stage) }));
  if (span.stage === "blending") group.append(ramp(at, span, blockTop, axis));
}

/** Alpha as a filled ramp from 0 at the block's bottom to 1 at its top. */
function ramp(at, span, blockTop, axis) {
  const points = [[span.start, 0], ...span.alphas.filter(([time]) => time > span.start)];
  if (points.at(-1)[0] < span.end) points.push([span.end, points.at(-1)[1]]);
  const [low, high] = axis.domain;
  const clamp = (time) => at.x(Math.min(Math.max(time, low), high));
  const line = points.map(([time, alpha]) => [clamp(time), blockTop + BLOCK - 1 - alpha * (BODY + 1)]);
  const floor = blockTop + BLOCK;
  return svg("path", { class: "ramp", d: `${path(line)}L${line.at(-1)[0].toFixed(1)} ${floor}L${line[0][0].toFixed(1)} ${floor}Z` });
}

/** The blueprint's name after its planting, where there is room. */
function names(group, at, lane, blockTop, axis) {
  lane.marks.forEach((mark, i) => {
    if (mark.fate !== "planted" || mark.time < axis.domain[0] || mark.time > axis.domain[1]) return;
    const next = lane.marks.slice(i + 1).find((each) => each.fate === "planted");
    const room = at.x(next ? next.time : axis.full[1]) - at.x(mark.time) - 8;
    const text = cut(seedName(mark.blueprint), Math.floor(room / 5.8));
    if (text.length > 3) group.append(svg("text", { class: "seed-name", x: at.x(mark.time) - 3, y: blockTop - 4.5 }, text));
  });
}

function cut(text, length) {
  if (text.length <= length) return text;
  if (length < 4) return "";
  const head = Math.floor(length / 3);
  return `${text.slice(0, head)}…${text.slice(text.length - (length - head - 1))}`;
}

/** A swatch of a stage for the legend. */
export function swatch(stage) {
  const figure = svg("svg", { width: 22, height: 14, viewBox: "0 0 22 14", "aria-hidden": "true" });
  const { defs, fill } = patterns();
  figure.append(defs);
  if (stage === "fossilized") figure.append(diamond(11, 7, 6));
  else if (!STAGES[stage].live && ["dormant", "unknown", "terminated"].includes(stage)) figure.append(svg("line", { class: `rest s-${stage}`, x1: 1, x2: 21, y1: 7, y2: 7 }));
  else {
    figure.append(svg("rect", { class: `span s-${stage}`, x: 0.5, y: 0.5, width: 21, height: 13, rx: 3, fill: stage === "blending" ? null : fill(stage) }));
    if (stage === "blending") figure.append(svg("path", { class: "ramp", d: "M0.5 13.5L21.5 1V13.5Z" }));
  }
  return figure;
}

