// What the server tells, and what is known of each run because of it.

const SECTIONS = ["head", "lanes", "layers"];
const MAX_REASONS = 300;

/** Runs, alerts and the runs that are watched. Calls ``changed(what)`` after every news. */
export class Stream {
  constructor(changed) {
    this.changed = changed;
    this.entries = [];
    this.alerts = [];
    this.runs = new Map();
    this.watched = [];
    this.late = new Set();
    this.source = null;
    this.failures = 0;
  }

  /** Watch these runs, by id, beside the list and the alerts. */
  watch(ids) {
    if (this.source && ids.join() === this.watched.join()) {
      // A run that the stream asked for before it was there.
      for (const id of ids) if (!this.runs.has(id) && this.late.has(id)) { this.late.delete(id); this.fetch(id); }
      return;
    }
    this.late = new Set(ids.filter((id) => !this.entries.some((entry) => entry.id === id)));
    this.watched = ids;
    for (const id of this.runs.keys()) if (!ids.includes(id)) this.runs.delete(id);
    this.connect();
  }

  connect() {
    clearTimeout(this.again);
    this.source?.close();
    const query = new URLSearchParams(this.watched.map((id) => ["run", id]));
    const source = new EventSource(`/api/stream?${query}`);
    this.source = source;
    source.onopen = () => { this.failures = 0; this.changed("link", "live"); };
    source.onerror = () => {
      this.changed("link", "lost");
      if (source.readyState !== EventSource.CLOSED || source !== this.source) return;
      this.failures += 1;
      this.again = setTimeout(() => this.connect(), Math.min(30000, 1000 * 2 ** this.failures));
    };
    source.addEventListener("runs", (event) => { this.entries = JSON.parse(event.data); this.changed("runs"); });
    source.addEventListener("alerts", (event) => { this.alerts = JSON.parse(event.data); this.changed("alerts"); });
    source.addEventListener("run", (event) => this.take(JSON.parse(event.data)));
  }

  /** Take a patch in; one that does not fit makes the whole run be asked for. */
  take(patch) {
    const known = this.runs.get(patch.id);
    const base = patch.base ?? null;
    if (base === null) {
      this.runs.set(patch.id, { id: patch.id, version: patch.version, head: patch.head ?? null, lanes: patch.lanes ?? [], layers: patch.layers ?? [], reasons: patch.reasons ?? [], curves: patch.curves?.curves ?? {} });
    } else if (known && patch.version <= known.version) {
      return;
    } else if (!known || known.version !== base) {
      this.fetch(patch.id);
      return;
    } else {
      for (const section of SECTIONS) if (patch[section]) known[section] = patch[section];
      if (patch.reasons) known.reasons = [...patch.reasons, ...known.reasons].slice(0, MAX_REASONS);
      if (patch.curves) {
        const { first, curves } = patch.curves;
        for (const [name, values] of Object.entries(curves)) known.curves[name] = [...(known.curves[name] ?? []).slice(0, first), ...values];
      }
      known.version = patch.version;
    }
    this.changed("run", patch.id);
  }

  async fetch(id) {
    const answer = await fetch(`/api/runs/${encodeURIComponent(id)}`);
    if (answer.ok) this.take(await answer.json());
  }
}

/** Say that somebody looks after an alert. Throws with the server's reason. */
export async function acknowledge(id, who, token) {
  const answer = await fetch(`/api/alerts/${encodeURIComponent(id)}/ack`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
    body: JSON.stringify({ who }),
  });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).error ?? `the server answered ${answer.status}`);
  return answer.json();
}

/** Events of a run that have every word. */
export async function search(text, runId) {
  const query = new URLSearchParams({ q: text, run: runId, limit: "60" });
  const answer = await fetch(`/api/events?${query}`);
  if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
  return answer.json();
}
