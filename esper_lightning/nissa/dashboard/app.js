// Puts the page together: what is chosen, what is drawn when, and what keys and pointers do.

import { chart, growth, TimeAxis } from "./charts.js";
import { html, metric, short } from "./drawing.js";
import { grownAt, network } from "./network.js";
import * as panels from "./panels.js";
import { acknowledge, search, Stream } from "./stream.js";

const element = (id) => document.getElementById(id);
const chosen = { run: null, compared: null, byHand: false, searched: null };
const sprouted = new Set();
const wanted = new Set();
let figure = null;
let shouted = new Set();

const axis = new TimeAxis((what) => draw(what === "cursor" ? "cursor" : "figures"));
const stream = new Stream((what, detail) => {
  if (what === "link") link(detail);
  else if (what === "runs") { choose(); draw("top", "alerts"); }
  else if (what === "alerts") { shout(); draw("alerts"); }
  else draw("everything");
});

// -- what is chosen -----------------------------------------------------------------------------

const entryOf = (id) => stream.entries.find((entry) => entry.id === id);
const current = () => stream.runs.get(chosen.run);

function readAddress() {
  const told = new URLSearchParams(location.hash.slice(1));
  chosen.run = told.get("run");
  chosen.byHand = Boolean(chosen.run);
  chosen.compared = told.has("with") ? told.get("with").split(",").filter(Boolean) : null;
}

function choose() {
  if (!entryOf(chosen.run)) { chosen.run = null; chosen.byHand = false; }
  if (!chosen.byHand) {
    const best = stream.entries.find((entry) => entry.live) ?? stream.entries.find((entry) => entry.role === "grown") ?? stream.entries[0];
    if (!best) { stream.watch([]); return; }
    if (best.id !== chosen.run && (!chosen.run || best.live)) turnTo(best.id);
  }
  stream.watch([chosen.run, ...compared()]);
}

function turnTo(id) {
  chosen.run = id;
  chosen.searched = null;
  element("search").value = "";
  axis.shown = null;
  axis.cursor = null;
  sprouted.clear();
}

/** Runs beside the chosen one: those that were picked, else its own host alone and static twin. */
function compared() {
  const there = (id) => entryOf(id) && id !== chosen.run;
  if (chosen.compared) return chosen.compared.filter(there).slice(0, 4);
  const mine = entryOf(chosen.run);
  if (!mine || mine.role !== "grown") return [];
  const twin = (role, more) => stream.entries.find((entry) => entry.role === role && entry.host_parameters === mine.host_parameters && (!mine.host || entry.host === mine.host) && (mine.seed === null || entry.seed === mine.seed) && more(entry))?.id;
  return [twin("host alone", () => true), twin("static", (entry) => entry.parameters === mine.parameters)].filter(Boolean);
}

/** What tells that a run is not of the same seed as the chosen one, or not known to be. */
function otherSeed(id) {
  const seed = entryOf(id)?.seed ?? null;
  return seed === null || seed === entryOf(chosen.run)?.seed ? "" : `, seed ${seed}`;
}

function writeAddress() {
  const told = new URLSearchParams({ run: chosen.run });
  if (chosen.compared) told.set("with", chosen.compared.join());
  history.replaceState(null, "", `#${told}`);
}

// -- drawing ------------------------------------------------------------------------------------

function draw(...parts) {
  if (!wanted.size) requestAnimationFrame(drawWanted);
  for (const part of parts) wanted.add(part);
}

function drawWanted() {
  const all = wanted.has("everything");
  const has = (part) => all || wanted.has(part);
  const parts = new Set(["top", "alerts", "figures", "cursor"].filter(has));
  wanted.clear();
  const run = current();
  if (parts.has("top")) top(run);
  if (parts.has("alerts")) panels.alerts(stream.alerts, stream.entries, askAcknowledge);
  if (!run?.head) return;
  if (parts.has("figures")) { setTimes(run); panels.legend(run.lanes); panels.slots(run.lanes); }
  if (parts.has("figures") || parts.has("cursor")) drawFigures(run);
  if (all) { panels.risk(run.head); if (chosen.searched === null) panels.reasons(run.reasons, pointTo); }
}

function top(run) {
  panels.picker(stream.entries, chosen.run, compared());
  const twin = (role) => compared().map((id) => stream.runs.get(id)).find((each) => each?.head && entryOf(each.id)?.role === role && each.head.host_parameters === run?.head?.host_parameters);
  const alone = twin("host alone");
  panels.hero(run, entryOf(chosen.run), { alone, fixed: twin("static"), note: alone ? otherSeed(alone.id) : "" });
}

function setTimes(run) {
  const { start, end, max_epochs: most, outcome } = run.head;
  const last = !outcome && most ? most : end;
  const others = compared().map((id) => stream.runs.get(id)?.head?.end ?? 0);
  axis.setFull(start, Math.max(last, ...others));
}

function seriesOf(run, column) {
  const list = [];
  const add = (each, name, look, values, area = false) => { if (values?.some((value) => value !== null)) list.push({ name, end: name.split(",")[0], look, times: each.curves.times, values, area }); };
  add(run, column === "validation" ? run.head.validation : "this run", "main", run.curves[column], column !== "validation");
  compared().forEach((id, i) => {
    const other = stream.runs.get(id);
    if (!other?.head || (column === "validation" && other.head.validation !== run.head.validation)) return;
    const role = entryOf(id).role;
    const own = role && role !== "grown" ? role : entryOf(id).name;
    add(other, own === role ? own + otherSeed(id) : own, role === "host alone" ? "alone" : role === "static" ? "fixed" : `other-${i % 2}`, other.curves[column]);
  });
  if (column === "validation" && run.head.training) add(run, run.head.training, "second", run.curves.training);
  return list;
}

function drawFigures(run) {
  const { head } = run;
  const series = seriesOf(run, "validation");
  panels.key("curve-key", series);
  const live = !head.outcome && entryOf(chosen.run)?.live;
  figure = growth(element("growth"), axis, { series, lanes: run.lanes, format: (value) => metric(head.validation, value).replace(".0 %", " %"), label: `${head.validation} over ${head.epoch} epochs, and ${run.lanes.length} slots`, end: head.end, live });
  const sizes = seriesOf(run, "parameters");
  panels.key("size-key", sizes);
  chart(element("size"), axis, sizes, { format: (value) => short(value), zero: true, room: 58, ends: false, label: "Parameters over time" });
  const costs = seriesOf(run, "total_flops");
  panels.key("cost-key", costs);
  chart(element("cost"), axis, costs, { format: (value) => short(value), zero: true, room: 58, ends: false, label: "Training FLOPs over time" });
  network(element("network"), { layers: run.layers, lanes: run.lanes, time: axis.cursor, before: sprouted });
  element("network-when").textContent = axis.cursor === null ? "now" : `at the end of epoch ${Math.round(axis.cursor)}`;
}

// -- pointing -----------------------------------------------------------------------------------

function pointTo(time) { axis.point(time); }

function readout(lane) {
  const run = current();
  if (!run?.head || axis.cursor === null) return null;
  const rows = seriesOf(run, "validation").map((each) => {
    const i = each.times.findLastIndex((time) => time <= axis.cursor + 1e-9);
    return i < 0 || axis.cursor >= each.times.at(-1) + 1 ? null : [each.name, metric(run.head.validation, each.values[i]), each.look];
  }).filter(Boolean);
  const i = run.curves.times.findLastIndex((time) => time <= axis.cursor + 1e-9);
  if (i >= 0) rows.push(["parameters", short(run.curves.parameters[i]), ""]);
  const told = (lane ? [lane] : run.lanes).map((each) => {
    const { fossils, seed } = grownAt(each, axis.cursor, false);
    const span = each.spans.findLast((one) => one.start <= axis.cursor);
    const what = seed ? `${seed.stage} ${seed.blueprint}${seed.stage === "blending" ? ` α ${seed.alpha.toFixed(2)}` : ""}` : span?.stage ?? "unknown";
    return [each.slot, `${what}${fossils.length ? `, ${fossils.length} grown` : ""}`, ""];
  });
  return { title: `epoch ${Math.round(axis.cursor)}`, rows, told };
}

function showTip(event, lane) {
  const told = readout(lane);
  const tip = element("tip");
  tip.hidden = !told;
  if (!told) return;
  const row = ([name, value, look]) => html("div", { class: `tip-row ${look}` }, html("span", {}, name), html("b", {}, value));
  tip.replaceChildren(html("strong", {}, told.title), ...told.rows.map(row), html("hr"), ...told.told.slice(0, 8).map(row));
  const { width, height } = tip.getBoundingClientRect();
  const x = event.clientX + 18 + width > innerWidth ? event.clientX - width - 18 : event.clientX + 18;
  tip.style.left = `${Math.max(6, x)}px`;
  tip.style.top = `${Math.min(Math.max(6, event.clientY - height / 2), innerHeight - height - 6)}px`;
}

function say() {
  const told = readout(null);
  element("readout").textContent = told ? [told.title, ...[...told.rows, ...told.told].map(([name, value]) => `${name} ${value}`)].join(", ") : "";
}

function listen(box) {
  let drag = null;
  const timeOf = (event) => figure.at.time(event.clientX - box.getBoundingClientRect().left);
  box.addEventListener("pointermove", (event) => {
    if (!figure) return;
    if (drag !== null && axis.shown) {
      const [low, high] = axis.domain;
      axis.pan(((drag - event.clientX) * (high - low)) / (figure.at.right - figure.at.left));
      drag = event.clientX;
      element("tip").hidden = true;
      return;
    }
    pointTo(Math.round(timeOf(event)));
    showTip(event, figure.laneAt(event.clientY - box.getBoundingClientRect().top));
  });
  box.addEventListener("pointerdown", (event) => { drag = event.clientX; });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { drag = null; });
  box.addEventListener("pointerleave", () => { element("tip").hidden = true; if (document.activeElement !== box) pointTo(null); });
  box.addEventListener("dblclick", () => axis.all());
  box.addEventListener("wheel", (event) => {
    if (!figure || !(event.ctrlKey || event.metaKey || document.activeElement === box)) return;
    event.preventDefault();
    axis.zoom(event.deltaY > 0 ? 1.25 : 0.8, timeOf(event));
  }, { passive: false });
  box.addEventListener("keydown", (event) => {
    const [low, high] = axis.domain;
    const step = event.shiftKey ? Math.max(1, Math.round((high - low) / 10)) : 1;
    const end = current()?.head?.end ?? high;
    const from = axis.cursor ?? Math.min(high, end);
    const act = {
      ArrowLeft: () => moveTo(Math.max(axis.full[0], from - step)), ArrowRight: () => moveTo(Math.min(axis.full[1], from + step)),
      Home: () => moveTo(axis.full[0]), End: () => moveTo(end), "+": () => axis.zoom(0.7), "=": () => axis.zoom(0.7), "-": () => axis.zoom(1.4),
      Escape: () => { axis.point(null); axis.all(); say(); },
    }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  box.addEventListener("blur", () => { axis.point(null); element("readout").textContent = ""; });
}

function moveTo(time) {
  axis.point(time);
  const [low, high] = axis.domain;
  if (time < low) axis.pan(time - low);
  else if (time > high) axis.pan(time - high);
  say();
}

// -- alerts -------------------------------------------------------------------------------------

function shout() {
  const firing = stream.alerts.filter((alert) => alert.state === "firing");
  const fresh = firing.filter((alert) => !shouted.has(alert.id));
  shouted = new Set(firing.map((alert) => alert.id));
  const box = element("shout");
  if (fresh.length) box.textContent = `${fresh[0].name}: ${fresh[0].text}`;
  if (fresh.length || !firing.length) box.hidden = !firing.length;
}

function askAcknowledge(alert) {
  const dialog = element("ack");
  dialog.dataset.alert = alert.id;
  element("ack-what").textContent = `${alert.name}: ${alert.text}`;
  element("ack-who").value = sessionStorage.getItem("who") ?? "";
  element("ack-token").value = sessionStorage.getItem("token") ?? "";
  element("ack-error").hidden = true;
  dialog.showModal();
}

element("ack-cancel").addEventListener("click", () => element("ack").close());
element("ack-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const who = element("ack-who").value.trim();
  const token = element("ack-token").value.trim();
  try {
    await acknowledge(element("ack").dataset.alert, who, token);
    sessionStorage.setItem("who", who);
    sessionStorage.setItem("token", token);
    element("ack").close();
    element("shout").hidden = true;
  } catch (error) {
    element("ack-error").textContent = error.message;
    element("ack-error").hidden = false;
  }
});

// -- the rest -----------------------------------------------------------------------------------

function link(state) {
  const box = element("link");
  box.className = `link ${state}`;
  box.textContent = state === "live" ? "connected" : "connection lost, trying again";
}

element("run-pick").addEventListener("change", (event) => {
  turnTo(event.target.value);
  chosen.byHand = true;
  chosen.compared = null;
  writeAddress();
  choose();
  draw("everything");
});
element("compare-list").addEventListener("change", () => {
  chosen.compared = [...element("compare-list").querySelectorAll("input:checked")].map((input) => input.value);
  chosen.byHand = true;
  writeAddress();
  choose();
  draw("everything");
});
addEventListener("pointerdown", (event) => { if (!element("compare").contains(event.target)) element("compare").open = false; });
addEventListener("keydown", (event) => { if (event.key === "Escape") element("compare").open = false; });
addEventListener("hashchange", () => { readAddress(); choose(); draw("everything"); });
element("zoom-in").addEventListener("click", () => axis.zoom(0.6));
element("zoom-out").addEventListener("click", () => axis.zoom(1.6));
element("zoom-all").addEventListener("click", () => axis.all());
let typing = 0;
element("search").addEventListener("input", (event) => {
  clearTimeout(typing);
  const text = event.target.value.trim();
  typing = setTimeout(async () => {
    chosen.searched = text || null;
    if (!text) { panels.reasons(current()?.reasons ?? [], pointTo); return; }
    const events = await search(text, current()?.head?.run_id ?? "").catch(() => []);
    if (chosen.searched === text) panels.reasons(panels.found(events), pointTo);
  }, 200);
});
let width = 0;
new ResizeObserver(() => { if (innerWidth !== width) { width = innerWidth; draw("figures"); } }).observe(document.body);
setInterval(() => draw("top", "alerts"), 30000);
listen(element("growth"));
readAddress();
stream.watch(chosen.run ? [chosen.run] : []);
