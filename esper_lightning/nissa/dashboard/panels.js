// Everything that is words and numbers.

import { ago, factor, html, isAccuracy, metric, short, STAGES } from "./drawing.js";
import { swatch } from "./charts.js";

const RANKS = ["green", "yellow", "orange", "red", "critical"];

/** Run, state and figures at the top, beside its host alone and the static network of its size. */
export function hero(run, entry, beside) {
  const head = run?.head;
  document.title = entry ? `${entry.name} · Mission control` : "Mission control";
  text("run-name", entry?.name ?? "No run yet");
  const state = document.getElementById("run-state");
  const outcome = head?.outcome || entry?.outcome || "";
  const live = Boolean(entry?.live) && !outcome;
  state.hidden = !entry;
  state.className = `pill ${live ? "live" : outcome === "finished" ? "good" : outcome ? "bad" : "plain"}`;
  state.textContent = live ? "training" : outcome.startsWith("failed") ? "failed" : outcome || "no end told";
  if (!head) { if (entry) text("run-told", outcome.startsWith("failed") ? outcome : "No epoch is over yet."); return; }
  const epochs = head.max_epochs ? `epoch ${head.epoch} of ${head.max_epochs}` : `epoch ${head.epoch}`;
  const parts = [epochs, entry?.host && `host ${entry.host}`, head.policy && `decided by ${head.policy}`, head.device && `on ${head.device}`, head.step_s && `${short(head.step_s * 1000)} ms a step`, entry && ago(entry.updated)];
  text("run-told", parts.filter(Boolean).join(" · "));
  if (outcome.startsWith("failed")) text("run-told", outcome);
  const bar = document.getElementById("progress");
  bar.hidden = !live || !head.max_epochs;
  if (!bar.hidden) {
    bar.setAttribute("aria-valuemin", 0);
    bar.setAttribute("aria-valuemax", head.max_epochs);
    bar.setAttribute("aria-valuenow", head.epoch);
    bar.firstElementChild.style.width = `${(100 * head.epoch) / head.max_epochs}%`;
  }
  tiles(run, head, beside);
}

/** What the reference had when it was as old as this run; its last value where it was shorter. */
function valueThen(reference, head, column = "validation") {
  if (!reference?.head || reference.head.validation !== head.validation) return null;
  const { times, [column]: values } = reference.curves;
  return values.findLast((value, i) => value !== null && times[i] <= head.epoch) ?? null;
}

function tiles(run, head, { alone: reference, fixed, note }) {
  const value = head.metrics[head.validation] ?? run.curves.validation?.findLast((each) => each !== null);
  const accuracy = isAccuracy(head.validation);
  const known = value !== undefined && value !== null;
  const gapTo = (other) => { const than = valueThen(other, head); return known && than !== null ? value - than : null; };
  const gaps = [[gapTo(reference), `host alone${note}`, reference], [gapTo(fixed), "static", fixed]].filter(([gap]) => gap !== null);
  const points = (gap) => `${gap >= 0 ? "+" : "−"}${accuracy ? Math.abs(100 * gap).toFixed(1) : Math.abs(gap).toPrecision(3)}`;
  const early = gaps.some(([, , other]) => head.epoch < other.head.epoch) ? " at this epoch" : "";
  const better = gaps.map(([gap, name], i) => `${points(gap)}${accuracy && !i ? " points" : ""} to ${name}`).join(", ") + early;
  const good = gaps.map(([gap]) => (gap >= 0) === (accuracy || head.mode === "max"));
  const look = !good.length || new Set(good).size > 1 ? "" : good[0] ? "up" : "down";
  const tile = (name, shown, told, how = "") => html("div", { class: `tile ${how}` }, html("dt", {}, name), html("dd", { class: "figure-now" }, shown), html("dd", { class: "note" }, told || " "));
  const risk = head.risk;
  const spent = fixed?.head.epoch >= head.epoch ? valueThen(fixed, head, "total_flops") : null;
  const flops = [head.host_total_flops ? `${factor(head.host_total_flops, head.total_flops)} the host's alone` : "the host's are not known", spent && `${factor(spent, head.total_flops)} the static one's`].filter(Boolean).join(", ");
  document.getElementById("tiles").replaceChildren(
    tile(head.validation, metric(head.validation, value), better, look),
    tile("parameters", short(head.parameters), head.parameters === head.host_parameters ? "as many as its host" : `${factor(head.host_parameters, head.parameters)} its host's ${short(head.host_parameters)}`),
    tile("training FLOPs", short(head.total_flops), flops),
    tile("seeds", `${head.num_fossilized} grown`, `${head.num_culled} culled, ${run.lanes.filter((lane) => STAGES[lane.stage].live).length} alive`),
    tile("risk", risk ? risk.level : "–", risk ? (risk.conservative ? "conservative mode" : risk.reason) : "nobody assesses it", risk ? `risk-${risk.level}` : ""),
  );
}

/** The list of runs to choose from. */
export function picker(entries, chosen, compared) {
  const select = document.getElementById("run-pick");
  const label = (entry) => `${entry.live ? "● " : ""}${entry.name}${entry.role && entry.role !== "grown" ? ` (${entry.role})` : ""}`;
  const wanted = entries.map((entry) => `${entry.id} ${label(entry)}`).join("\n");
  if (select.dataset.told !== wanted) {
    select.dataset.told = wanted;
    select.replaceChildren(...entries.map((entry) => html("option", { value: entry.id }, label(entry))));
  }
  if (chosen) select.value = chosen;
  const list = document.getElementById("compare-list");
  const others = entries.filter((entry) => entry.id !== chosen).slice(0, 60);
  const key = `${chosen} ${others.map((entry) => `${entry.id} ${label(entry)}`).join("\n")} ${compared.join()}`;
  if (list.dataset.told !== key) {
    list.dataset.told = key;
    const focused = document.activeElement?.value;
    list.replaceChildren(list.firstElementChild, ...others.map((entry) => html("label", {},
      html("input", { type: "checkbox", value: entry.id, checked: compared.includes(entry.id), disabled: compared.length >= 4 && !compared.includes(entry.id) }),
      html("span", {}, label(entry)),
      html("small", {}, [entry.metric && metric(entry.metric, entry.value), entry.parameters && short(entry.parameters)].filter(Boolean).join(" · ")))));
    if (focused) list.querySelector(`input[value="${CSS.escape(focused)}"]`)?.focus();
  }
  const count = document.getElementById("compare-count");
  count.hidden = !compared.length;
  count.textContent = String(compared.length);
}

/** Alerts with a button each. */
export function alerts(list, entries, acknowledging) {
  const active = list.filter((alert) => alert.state !== "resolved" && alert.state !== "pending");
  const firing = active.filter((alert) => alert.state === "firing");
  const count = document.getElementById("alerts-count");
  count.hidden = !firing.length;
  count.textContent = String(firing.length);
  const shown = [...active, ...list.filter((alert) => alert.state === "resolved").slice(0, 3)];
  const box = document.getElementById("alerts");
  if (!shown.length) { box.replaceChildren(html("li", { class: "calm" }, "Nothing is wrong.")); return; }
  const focused = document.activeElement?.dataset?.alert;
  box.replaceChildren(...shown.map((alert) => {
    const run = entries.find((entry) => entry.run_id === alert.labels.run);
    const state = alert.state === "acknowledged" ? `${alert.acknowledged_by} looks after it` : alert.state === "resolved" ? "over" : `since ${ago(alert.fired ?? alert.since)}`;
    return html("li", { class: `alert ${alert.severity} ${alert.state}` },
      html("div", { class: "alert-head" }, html("strong", {}, alert.name), html("span", { class: "badge" }, alert.severity)),
      html("p", {}, alert.text), html("p", { class: "remedy" }, alert.remedy),
      html("div", { class: "alert-foot" }, html("span", {}, [run?.name ?? alert.labels.run, state].filter(Boolean).join(" · ")),
        alert.state === "firing" ? html("button", { type: "button", "data-alert": alert.id, "aria-label": `Acknowledge ${alert.name}`, on: { click: () => acknowledging(alert) } }, "Acknowledge") : null));
  }));
  if (focused) box.querySelector(`[data-alert="${CSS.escape(focused)}"]`)?.focus();
}

/** The risk's signals as bars. */
export function risk(head) {
  const told = head?.risk;
  const level = document.getElementById("risk-level");
  level.textContent = told ? `${told.level}${told.conservative ? ", conservative mode" : ""}` : "";
  const box = document.getElementById("risk");
  if (!told) { box.replaceChildren(html("p", { class: "calm" }, "Nobody assesses it.")); return; }
  const rank = RANKS.indexOf(told.level);
  const scale = html("div", { class: "risk-scale", role: "img", "aria-label": `risk ${told.level}` }, ...RANKS.map((name, i) => html("i", { class: `${name}${i === rank ? " now" : ""}` })));
  const signals = Object.entries(told.signals).sort(([a], [b]) => a.localeCompare(b)).map(([name, value]) => {
    const bar = html("i", {});
    bar.style.width = `${Math.max(1.5, 100 * Math.min(1, value))}%`;
    return html("div", { class: "signal" }, html("span", {}, name), html("span", { class: "track" }, bar), html("span", { class: "num" }, value.toFixed(2)));
  });
  box.replaceChildren(scale, html("p", { class: "why" }, told.reason), ...signals);
}

/** What happened, the latest first. ``point`` is called with the time of an entry. */
export function reasons(list, point) {
  const box = document.getElementById("reasons");
  box.replaceChildren(...(list.length ? list.map((reason) => {
    const item = html("li", { class: `reason ${reason.tone} ${reason.kind}` },
      html("span", { class: "when" }, String(Math.round(reason.time))),
      html("div", {}, html("p", { class: "what" }, html("b", {}, reason.title), reason.slot ? html("span", { class: "slot" }, reason.slot) : null), reason.text ? html("p", { class: "why" }, reason.text) : null));
    item.addEventListener("pointerenter", () => point(reason.time));
    item.addEventListener("pointerleave", () => point(null));
    return item;
  }) : [html("li", { class: "calm" }, "Nothing has happened yet.")]));
}

/** Events that a search found, in the same form. */
export function found(events) {
  return events.map(({ id, text: what, event }) => ({
    number: id, time: (event.last_epoch ?? event.epoch ?? -1) + 1, kind: event.type, tone: "plain", slot: event.slot ?? event.command?.slot ?? "", title: event.type.replaceAll("_", " "), text: what,
  }));
}

/** The table of slots. */
export function slots(lanes) {
  const row = (lane) => html("tr", {},
    html("th", { scope: "row" }, lane.slot),
    html("td", {}, html("span", { class: "stage-cell" }, swatch(lane.stage), html("span", {}, lane.stage + (lane.paused ? ", paused" : "")))),
    html("td", {}, lane.blueprint || "–"),
    html("td", { class: "num" }, STAGES[lane.stage].live ? lane.alpha.toFixed(2) : "–"),
    html("td", { class: "num" }, lane.gain === null ? "–" : `${(100 * lane.gain).toFixed(1)} %`),
    html("td", { class: "num" }, lane.rent === null ? "–" : `${(100 * lane.rent).toFixed(2)} %`),
    html("td", {}, lane.fossils.map((fossil) => fossil.blueprint).join(", ") || "–"),
    html("td", { class: "why" }, lane.reason));
  const heads = ["slot", "stage", "seed", "alpha", "gain", "rent", "grown", "reason"];
  document.getElementById("slots").replaceChildren(
    html("thead", {}, html("tr", {}, ...heads.map((name) => html("th", { scope: "col", class: ["alpha", "gain", "rent"].includes(name) ? "num" : null }, name)))),
    html("tbody", {}, ...lanes.map(row)));
}

/** The legend of stages that occur. */
export function legend(lanes) {
  const present = new Set(lanes.flatMap((lane) => lane.spans.map((span) => span.stage)));
  if (lanes.some((lane) => lane.fossils.length || lane.marks.some((mark) => mark.fate === "fossilized"))) present.add("fossilized");
  const box = document.getElementById("stages");
  const key = [...present].sort().join();
  if (box.dataset.told === key) return;
  box.dataset.told = key;
  box.replaceChildren(...Object.keys(STAGES).filter((stage) => present.has(stage)).map((stage) => html("li", {}, swatch(stage), html("span", {}, html("b", {}, stage), ` ${STAGES[stage].text}`))));
}

/** The curves' names with a line of their look. */
export function key(id, series) {
  document.getElementById(id).replaceChildren(...series.map((each) => html("span", { class: `key-item ${each.look}` }, html("i", {}), each.name)));
}

function text(id, told) {
  const element = document.getElementById(id);
  if (element.textContent !== told) element.textContent = told;
}
