// The host's layers, and what has grown on them, as they were at one time.

import { patterns, seedName, short, svg } from "./drawing.js";

const COLUMN = 138;
const NODE = 92;
const STEP = 30;

/** The layers that are drawn: the outermost ones, but none that hides a slot inside. */
export function shownLayers(layers, slots) {
  const inside = (outer, inner) => inner.startsWith(`${outer}.`);
  const kept = [];
  for (const layer of layers) {
    if (kept.some((each) => inside(each.path, layer.path))) continue;
    if (slots.some((slot) => inside(layer.path, slot)) && layers.some((each) => inside(layer.path, each.path))) continue;
    kept.push(layer);
  }
  return kept;
}

/** Pairs of drawn layers, the second of which reads the first. */
function edges(shown, layers) {
  const known = new Set(shown.map((layer) => layer.path));
  const find = (path) => {
    if (known.has(path)) return path;
    const outer = shown.find((layer) => path.startsWith(`${layer.path}.`));
    if (outer) return outer.path;
    const inner = shown.filter((layer) => layer.path.startsWith(`${path}.`));
    return inner.at(-1)?.path ?? null;
  };
  const found = new Map();
  for (const layer of layers) {
    const to = find(layer.path);
    for (const read of layer.reads) {
      const from = find(read);
      if (from && to && from !== to) found.set(`${from} ${to}`, [from, to]);
    }
  }
  return [...found.values()];
}

/** Columns by the longest way from the first layers. */
function columns(shown, pairs) {
  const depth = new Map(shown.map((layer) => [layer.path, 0]));
  const order = new Map(shown.map((layer, i) => [layer.path, i]));
  for (const layer of shown) {
    for (const [from, to] of pairs) {
      if (to === layer.path && order.get(from) < order.get(to)) depth.set(to, Math.max(depth.get(to), depth.get(from) + 1));
    }
  }
  if (!pairs.length) shown.forEach((layer, i) => depth.set(layer.path, i));
  return depth;
}

/** What stands on a slot at a time: its fossils, and the seed that lives there. */
export function grownAt(lane, time, now) {
  const fossils = lane.fossils.filter((fossil) => fossil.time <= time + 1e-9);
  if (now) return { fossils, seed: lane.blueprint ? { blueprint: lane.blueprint, stage: lane.stage, alpha: lane.alpha, num: lane.num_parameters } : null };
  const span = lane.spans.find((each) => each.start <= time && time < each.end);
  const planted = lane.marks.filter((mark) => mark.fate === "planted" && mark.time <= time + 1e-9).at(-1);
  const rests = !span || ["dormant", "unknown", "embargoed", "resetting", "fossilized", "terminated"].includes(span.stage);
  if (rests || !planted) return { fossils, seed: null };
  const alpha = span.alphas.filter(([at]) => at <= time).at(-1)?.[1] ?? (["shadowing", "probationary"].includes(span.stage) ? 1 : 0);
  return { fossils, seed: { blueprint: planted.blueprint, stage: span.stage, alpha, num: null } };
}

/** Draw into ``box``; ``time`` is null for now. ``before`` holds what was drawn, so that only news sprout. */
export function network(box, { layers, lanes, time, before }) {
  const slots = lanes.map((lane) => lane.slot);
  const list = layers.length ? layers : slots.map((slot, i) => ({ path: slot, module: "slot", num_parameters: 0, reads: i ? [slots[i - 1]] : [] }));
  const shown = shownLayers(list, slots);
  const pairs = edges(shown, list);
  const depth = columns(shown, pairs);
  const grown = new Map(lanes.map((lane) => [lane.slot, grownAt(lane, time ?? Infinity, time === null)]));
  const tallest = Math.max(0, ...[...grown.values()].map((each) => each.fossils.length + (each.seed ? 1 : 0)));
  const rows = new Map();
  const seats = new Map();
  for (const layer of shown) {
    const column = depth.get(layer.path);
    const row = rows.get(column) ?? 0;
    rows.set(column, row + 1);
    seats.set(layer.path, { column, row });
  }
  const count = Math.max(1, ...[...depth.values()].map((each) => each + 1));
  const room = Math.max(0, box.clientWidth - 2);
  const column = Math.max(COLUMN, Math.min(230, (room - 60) / count));
  const width = Math.max(room, count * column + 60);
  const rowHeight = 70 + tallest * STEP;
  const height = 24 + rowHeight * Math.max(1, ...rows.values());
  const most = Math.max(1, ...shown.map((layer) => layer.num_parameters));
  const figure = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": told(lanes, grown) });
  const { defs, fill } = patterns();
  figure.append(defs);
  const offset = (width - count * column) / 2;
  const seat = (name) => { const { column: c, row } = seats.get(name); return [offset + (c + 0.5) * column, height - 42 - row * rowHeight]; };
  wires(figure, shown, pairs, seat, { offset, width, depth, count });
  for (const layer of shown) {
    const [x, y] = seat(layer.path);
    const size = 26 + 16 * Math.sqrt(layer.num_parameters / most);
    const on = grown.get(layer.path);
    if (on) branches(figure, { x, y, size, on, slot: layer.path, before, fill });
    figure.append(
      svg("rect", { class: `node${on ? " slot" : ""}`, x: x - NODE / 2, y: y - size / 2, width: NODE, height: size, rx: 9 }),
      svg("text", { class: "node-name", x, y: y + 4, "text-anchor": "middle" }, tail(layer.path, 14)),
      svg("text", { class: "node-text", x, y: y + size / 2 + 14, "text-anchor": "middle" }, `${layer.module} ${short(layer.num_parameters)}`),
    );
  }
  box.replaceChildren(figure);
}

function wires(figure, shown, pairs, seat, { offset, width, depth, count }) {
  const read = new Set(pairs.map(([, to]) => to));
  const given = new Set(pairs.map(([from]) => from));
  for (const layer of shown) {
    const [x, y] = seat(layer.path);
    if (!read.has(layer.path) && depth.get(layer.path) === 0) figure.append(svg("path", { class: "wire", d: `M${Math.max(4, offset - 16)} ${y}H${x}` }), svg("circle", { class: "port", cx: Math.max(6, offset - 16), cy: y, r: 4 }));
    if (!given.has(layer.path) && depth.get(layer.path) === count - 1) figure.append(svg("path", { class: "wire", d: `M${x} ${y}H${Math.min(width - 4, width - offset + 16)}` }), svg("circle", { class: "port", cx: Math.min(width - 6, width - offset + 16), cy: y, r: 4 }));
  }
  for (const [from, to] of pairs) {
    const [x1, y1] = seat(from);
    const [x2, y2] = seat(to);
    const far = Math.abs(depth.get(to) - depth.get(from)) > 1;
    const bend = far ? y1 + 34 : (y1 + y2) / 2;
    figure.append(svg("path", { class: "wire", d: far ? `M${x1} ${y1}C${x1 + 40} ${bend} ${x2 - 40} ${bend} ${x2} ${y2}` : `M${x1} ${y1}C${(x1 + x2) / 2} ${y1} ${(x1 + x2) / 2} ${y2} ${x2} ${y2}` }));
  }
}

/** Branches arch over their layer: fossils first, the living seed above them. */
function branches(figure, { x, y, size, on, slot, before, fill }) {
  const all = on.fossils.map((fossil) => ({ ...fossil, stage: "fossilized" }));
  if (on.seed) all.push({ ...on.seed, num_parameters: on.seed.num });
  all.forEach((branch, i) => {
    const rise = size / 2 + 24 + i * STEP;
    const reach = NODE / 2 + 9 + Math.min(i, 5) * 4;
    const key = `${slot} ${branch.stage === "fossilized" ? `f${i}` : "seed"}`;
    const fresh = !before.has(key);
    before.add(key);
    const alive = branch.stage !== "fossilized";
    const group = svg("g", { class: `branch s-${branch.stage}${alive ? " alive" : ""}${fresh ? " fresh" : ""}` });
    const top = y - rise;
    group.append(svg("path", { class: "arch", pathLength: 1, d: `M${x - reach} ${y}C${x - reach} ${top + 8} ${x - reach + 6} ${top} ${x - 30} ${top}H${x + 30}C${x + reach - 6} ${top} ${x + reach} ${top + 8} ${x + reach} ${y}` }));
    const half = 50;
    group.append(svg("rect", { class: "pill-shape", x: x - half, y: top - 10, width: 2 * half, height: 20, rx: 10, fill: alive && branch.stage !== "blending" ? fill(branch.stage) : null }));
    if (branch.stage === "blending") group.append(svg("rect", { class: "pill-alpha", x: x - half, y: top - 10, width: Math.max(6, 2 * half * branch.alpha), height: 20, rx: 10 }));
    group.append(
      svg("rect", { class: "plate", x: x - half + 3, y: top - 7, width: 2 * half - 6, height: 14, rx: 7 }),
      svg("text", { class: "branch-name", x, y: top + 3.6, "text-anchor": "middle" }, label(branch)),
      svg("title", {}, `${branch.blueprint}${branch.num_parameters ? `, ${short(branch.num_parameters)} parameters` : ""}, ${branch.stage}`),
    );
    figure.append(group);
  });
  const keep = new Set(all.map((branch, i) => `${slot} ${branch.stage === "fossilized" ? `f${i}` : "seed"}`));
  for (const key of [...before]) if (key.startsWith(`${slot} `) && !keep.has(key)) before.delete(key);
}

/** The blueprint in a few letters, with its parameters where they are known. */
function label(branch) {
  const name = seedName(branch.blueprint);
  const count = branch.num_parameters ? ` +${short(branch.num_parameters)}` : "";
  return (name.length + count.length > 14 ? `${name.slice(0, 13 - count.length)}…` : name) + count;
}

const tail = (text, length) => (text.length <= length ? text : `…${text.slice(text.length - length + 1)}`);

function told(lanes, grown) {
  const parts = lanes.map((lane) => {
    const { fossils, seed } = grown.get(lane.slot);
    const names = fossils.map((fossil) => fossil.blueprint).join(", ") || "nothing";
    return `${lane.slot}: ${names} has grown${seed ? `, ${seed.blueprint} is ${seed.stage}` : ""}`;
  });
  return parts.join("; ") || "no layers yet";
}

