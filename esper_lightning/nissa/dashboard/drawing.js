// SVG and HTML elements, numbers as people read them, and how stages look.

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element. A child that is a string becomes text. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

/** Likewise an HTML element. */
export function html(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") for (const [event, heard] of Object.entries(value)) element.addEventListener(event, heard);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return element;
}

/** A polyline's path through [x, y] points; a point that is null breaks it. */
export function path(points) {
  let text = "";
  let pen = "M";
  for (const point of points) {
    if (point === null) { pen = "M"; continue; }
    text += `${pen}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    pen = "L";
  }
  return text;
}

// -- numbers ------------------------------------------------------------------------------------

const PREFIXES = ["", "k", "M", "G", "T", "P", "E"];

/** Three significant digits with an SI prefix. */
export function short(value, unit = "") {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  let power = 0;
  while (Math.abs(value) >= 999.5 && power < PREFIXES.length - 1) { value /= 1000; power += 1; }
  const digits = Number.isInteger(value) && Math.abs(value) < 1000 ? String(value) : String(Number(value.toPrecision(3)));
  const rest = PREFIXES[power] + unit;
  return unit ? `${digits} ${rest}` : digits + rest;
}

export const isAccuracy = (name) => name.toLowerCase().includes("acc");

/** A metric's value: an accuracy in percent, others with four digits. */
export function metric(name, value) {
  if (value === null || value === undefined) return "–";
  if (isAccuracy(name) && value >= 0 && value <= 1) return `${(100 * value).toFixed(1)} %`;
  return String(Number(value.toPrecision(4)));
}

/** How many times ``before`` fits into ``after``. */
export const factor = (before, after) => before > 0 && after ? `${Number((after / before).toPrecision(3))}×` : "";

/** A blueprint's name where there is little room: that it stands beside its host is seen. */
export const seedName = (blueprint) => blueprint.replace(/^parallel_/, "").replaceAll("_", " ");

/** A moment of the past, as people say it. */
export function ago(seconds) {
  const past = Math.max(0, Date.now() / 1000 - seconds);
  if (past < 60) return "just now";
  if (past < 3600) return `${Math.floor(past / 60)} min ago`;
  if (past < 86400) return `${Math.floor(past / 3600)} h ago`;
  return new Date(seconds * 1000).toISOString().slice(0, 10);
}

/** Round numbers from ``low`` to ``high``, about ``count`` of them; whole ones where ``whole``. */
export function ticks(low, high, count, whole = false) {
  const rough = Math.max((high - low) / Math.max(1, count), whole ? 1 : 0);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((each) => each * power >= rough * 0.999 && !(whole && (each * power) % 1));
  const found = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step) found.push(Number(tick.toPrecision(12)));
  return found;
}

// -- stages -------------------------------------------------------------------------------------

/** Every stage: what it is called, and whether a seed lives in it. Colours are in style.css. */
export const STAGES = {
  unknown: { live: false, text: "not seen yet" },
  dormant: { live: false, text: "free to grow" },
  germinated: { live: true, text: "planted, not wired" },
  training: { live: true, text: "trains beside its host" },
  blending: { live: true, text: "fades in" },
  shadowing: { live: true, text: "in, still detached" },
  probationary: { live: true, text: "coupled, on trial" },
  fossilized: { live: false, text: "part of the network" },
  culled: { live: false, text: "fades out" },
  embargoed: { live: false, text: "rests" },
  resetting: { live: false, text: "is cleared" },
  terminated: { live: false, text: "grows no more" },
};

const PATTERNS = {
  germinated: [6, () => [svg("circle", { cx: 3, cy: 3, r: 1.1, class: "ink" })]],
  training: [7, () => [svg("path", { d: "M-1 8 8 -1M-1 1 1 -1M6 8 8 6", class: "line" })]],
  shadowing: [6, () => [svg("path", { d: "M3 0V6", class: "line" })]],
  probationary: [7, () => [svg("path", { d: "M-1 8 8 -1M-1 -1 8 8", class: "line" })]],
  culled: [8, () => [svg("path", { d: "M2 2 6 6M6 2 2 6", class: "line" })]],
  embargoed: [7, () => [svg("path", { d: "M-1 -1 8 8M6 -1 8 1M-1 6 1 8", class: "line" })]],
  resetting: [6, () => [svg("path", { d: "M0 3H6", class: "line" })]],
  terminated: [5, () => [svg("path", { d: "M0 2.5H5", class: "line" })]],
};

let numbered = 0;

/** Patterns for one figure; ``fill(stage)`` then names the paint of a stage. */
export function patterns() {
  numbered += 1;
  const own = numbered;
  const defs = svg("defs");
  for (const [stage, [size, drawn]] of Object.entries(PATTERNS)) {
    const pattern = svg("pattern", { id: `p${own}-${stage}`, width: size, height: size, patternUnits: "userSpaceOnUse", class: `pattern s-${stage}` });
    pattern.append(svg("rect", { width: size, height: size, class: "ground" }), ...drawn());
    defs.append(pattern);
  }
  return { defs, fill: (stage) => (stage in PATTERNS ? `url(#p${own}-${stage})` : `var(--${stage})`) };
}
