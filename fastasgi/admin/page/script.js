"use strict";
/* Follows the documents of `events`, whose shape fastasgi/admin/document.py describes, and shows the last one.
   All text is put in as text: paths, reasons and names come from strangers. */
{
const byId = (id) => document.getElementById(id);

/* --- Text ---------------------------------------------------------------------------------------------- */

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const count = (value) => number.format(value);
const counted = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
const known = (value, text) => (value === null || value === undefined ? "–" : text(value));
const plainRate = (value) => (value > 0 && value < 10 ? value.toFixed(value < 0.095 ? 2 : 1).replace(/\.0$/, "") : count(value));
const rateText = (value) => `${plainRate(value)}/s`;

function shareText(value) {
  const percent = value * 100;
  return `${percent > 0 && percent < 9.95 ? percent.toFixed(1).replace(/\.0$/, "") : Math.round(percent)} %`;
}

function bytesText(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let step = 0;
  while (value >= 1024 && step < units.length - 1) { value /= 1024; step += 1; }
  return `${step && value < 100 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value)} ${units[step]}`;
}

/* A measured time, of seconds. */
function timeText(seconds) {
  const ms = seconds * 1000;
  if (ms === 0) return "0 ms";
  if (ms < 1) return `${Math.round(ms * 1000)} µs`;
  if (ms < 1000) return `${ms < 10 ? ms.toFixed(1).replace(/\.0$/, "") : Math.round(ms)} ms`;
  return `${seconds < 10 ? seconds.toFixed(2).replace(/\.?0+$/, "") : seconds.toFixed(1).replace(/\.0$/, "")} s`;
}

/* How long something has lasted, of seconds. */
function ageText(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const from = parts.findIndex(([size]) => whole >= size);
  if (from < 0) return "0 s";
  const [size, unit] = parts[from];
  const [less, lesser] = parts[from + 1] ?? [0, ""];
  const rest = less ? Math.floor((whole % size) / less) : 0;
  return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${lesser}` : ""}`;
}

/* Characters that could hide or turn around what stands beside them are shown by their number. */
const visible = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Co}\p{Cn}\u2028\u2029]/gu,
  (character) => `\\u{${character.codePointAt(0).toString(16)}}`);
const words = (name) => name.replaceAll("_", " ");

function clockText(at) {
  const date = new Date(at * 1000);
  const time = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
  return date.toDateString() === new Date().toDateString() ? time : `${date.toLocaleDateString()} ${time}`;
}

/* --- Elements ------------------------------------------------------------------------------------------ */

function element(name, content = [], className = "") {
  const made = document.createElement(name);
  made.append(...[content].flat());
  if (className) made.className = className;
  return made;
}

function shape(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

const small = (text) => element("small", text);
const code = (text) => element("code", visible(text), "mono");
const badge = (text, kind) => element("span", text, `badge ${kind}`);

function moment(at) {
  const made = element("time", at ? clockText(at) : "–");
  if (at) made.dateTime = new Date(at * 1000).toISOString();
  return made;
}

function bar(share, isHigh) {
  const made = shape("svg", { class: "bar", "aria-hidden": "true" });
  const width = `${Math.round(Math.min(1, Math.max(0, share)) * 1000) / 10}%`;
  made.append(shape("rect", { class: "track", width: "100%", height: "100%", rx: 3 }));
  made.append(shape("rect", { class: isHigh ? "part high" : "part", width, height: "100%", rx: 3 }));
  return made;
}

function setText(id, text) {
  const place = byId(id);
  if (place.textContent !== text) place.textContent = text;
}

const pairs = (id, entries) => byId(id).replaceChildren(...entries);

/* Whether what a place shows has changed since it was last asked. */
const shown = new Map();
function hasChanged(id, content) {
  const text = JSON.stringify(content);
  if (shown.get(id) === text) return false;
  shown.set(id, text);
  return true;
}

/* A table by its columns, each a title, a class, and what its cell holds of a row. The first one names the row. */
function fillTable(id, columns, rows) {
  if (!hasChanged(id, rows)) return;
  const table = byId(id);
  const empty = byId(`${id}-empty`);
  table.hidden = !rows.length;
  if (empty) empty.hidden = rows.length > 0;
  table.tHead.replaceChildren(roled("tr", "row", columns.map(([title, className]) => {
    const cell = roled("th", "columnheader", title, className.replace("mono", ""));
    cell.scope = "col";
    return cell;
  })));
  table.tBodies[0].replaceChildren(...rows.map((row) => roled("tr", "row", columns.map(([title, className, content], i) => {
    const cell = roled(i ? "td" : "th", i ? "cell" : "rowheader", content(row), className);
    if (i === 0) cell.scope = "row";
    else cell.dataset.label = title;
    return cell;
  }))));
}

/* With its role said: on a narrow screen the style takes it from the parts of a table. */
function roled(name, role, content, className) {
  const made = element(name, content, className);
  made.setAttribute("role", role);
  return made;
}

for (const table of document.querySelectorAll("table")) {
  table.setAttribute("role", "table");
  for (const group of [table.tHead, table.tBodies[0]]) group.setAttribute("role", "rowgroup");
}

/* --- Charts -------------------------------------------------------------------------------------------- */

const percentiles = (name) => [
  [`${name}_p99_s`, "p99", "first"], [`${name}_p95_s`, "p95", "second"], [`${name}_p50_s`, "p50", "third"],
];
/* The title, how a value is written, the least that the scale reaches to, and lines: column, label, class. */
const CHARTS = [
  { title: "Requests per second", text: plainRate, least: 1, lines: [["requests_per_s", "requests", "first"]], marks: true },
  {
    title: "Errors per second", text: plainRate, least: 1,
    lines: [["server_errors_per_s", "5xx", "fault"], ["client_errors_per_s", "4xx", "second"], ["aborted_per_s", "client left", "third"]],
  },
  { title: "Running requests", text: count, least: 4, lines: [["running", "running", "first"]] },
  { title: "Time to first byte", text: timeText, least: 0.001, lines: percentiles("first_byte") },
  { title: "Whole time", text: timeText, least: 0.001, lines: percentiles("duration") },
  { title: "Lag of the event loops", text: timeText, least: 0.001, lines: [["lag_p99_s", "p99", "first"]] },
  { title: "Load of the event loops", text: shareText, least: 1, most: 1, lines: [["busy_share", "busy", "first"]] },
  { title: "Open connections", text: count, least: 4, lines: [["connections", "connections", "first"], ["websockets", "WebSockets", "second"]] },
  { title: "Memory of the workers", text: bytesText, least: 1048576, step: 1024, lines: [["resident_bytes", "resident", "first"]] },
];
const SPANS_S = [60, 120, 300, 600];

let points = { time_s: [] };
let nowAt = 0;          // of the document's clock, in seconds
let interval = 2;
let pointed = null;     // what part of the span lies behind the pointer, from 0 to 1

function niceTop(value, step) {
  let unit = 1;
  while (unit * step <= value && step > 1) unit *= step;
  const scaled = value / unit;
  const tens = 10 ** Math.floor(Math.log10(scaled));
  return unit * tens * [1, 2, 4, 6, 8, 10].find((factor) => factor * tens >= scaled * 0.999);
}

function spanOf() {
  const age = points.time_s.length ? nowAt - points.time_s[0] : 0;
  return SPANS_S.find((span) => span >= age) ?? SPANS_S.at(-1);
}

const agoText = (ago) => (ago < 1 ? "now" : ago < 120 && ago % 60 ? `${Math.round(ago)} s ago` : `${+(ago / 60).toFixed(1)} min ago`);

function makeChart(chart) {
  chart.figure = element("figure");
  chart.reading = element("span", "", "reading");
  chart.legend = element("ul", "", "legend");
  chart.svg = shape("svg", { class: "chart", role: "img" });
  chart.values = chart.lines.map(([, label, className]) => {
    const value = element("span", "–");
    const swatch = shape("svg", { "aria-hidden": "true", viewBox: "0 0 20 8" });
    swatch.append(shape("line", { class: `curve ${className}`, x1: 1, x2: 19, y1: 4, y2: 4 }));
    chart.legend.append(element("li", [swatch, element("span", `${label} `), value]));
    return value;
  });
  chart.figure.append(element("figcaption", [element("h3", chart.title), chart.reading]), chart.legend, chart.svg);
  chart.svg.addEventListener("pointermove", (event) => {
    const box = chart.svg.getBoundingClientRect();
    pointed = Math.min(1, Math.max(0, (event.clientX - box.left - EDGE.left) / (box.width - EDGE.left - EDGE.right)));
    drawCharts();
  });
  for (const leaving of ["pointerleave", "pointercancel"]) {
    chart.svg.addEventListener(leaving, () => { pointed = null; drawCharts(); });
  }
  return chart.figure;
}

const EDGE = { left: 48, right: 6, top: 10, bottom: 20 };

/* The path of a line, with a gap wherever a figure or a point is missing. */
function pathOf(values, x, y) {
  let path = "";
  let last = null;
  values.forEach((value, i) => {
    const time = points.time_s[i];
    if (value === null) { last = null; return; }
    path += `${last !== null && time - last < interval * 4 ? "L" : "M"}${x(time).toFixed(1)} ${y(value).toFixed(1)}`;
    last = time;
  });
  return path;
}

function nearestPoint(time) {
  let best = -1;
  points.time_s.forEach((each, i) => {
    if (best < 0 || Math.abs(each - time) < Math.abs(points.time_s[best] - time)) best = i;
  });
  return best;
}

function drawChart(chart) {
  const { width, height } = chart.svg.getBoundingClientRect();
  if (!width) return;
  const span = spanOf();
  const columns = chart.lines.map(([name]) => points[name] ?? []);
  const peak = Math.max(0, ...columns.flat().filter((value) => value !== null));
  const top = Math.min(chart.most ?? Infinity, niceTop(Math.max(chart.least, peak), chart.step ?? 1));
  const x = (time) => EDGE.left + (1 - (nowAt - time) / span) * (width - EDGE.left - EDGE.right);
  const y = (value) => height - EDGE.bottom - (value / top) * (height - EDGE.top - EDGE.bottom);
  const parts = [];
  for (const level of [0, top / 2, top]) {
    const at = Math.round(y(level)) + 0.5;
    parts.push(shape("line", { class: level ? "grid" : "axis", x1: EDGE.left, x2: width - EDGE.right, y1: at, y2: at }));
    parts.push(shape("text", { x: EDGE.left - 6, y: at + 4, "text-anchor": "end" }, level ? chart.text(level) : "0"));
  }
  for (const [ago, anchor] of [[span, "start"], [span / 2, "middle"], [0, "end"]]) {
    parts.push(shape("text", { x: x(nowAt - ago), y: height - 4, "text-anchor": anchor }, agoText(ago)));
  }
  if (chart.marks) parts.push(...failureMarks(x, y(0)));
  if (chart.lines.length === 1) {
    const path = pathOf(columns[0], x, y);
    // An area has to be closed, which only a line without gaps can be
    if (path && path.lastIndexOf("M") === 0) {
      const times = points.time_s.filter((_, i) => columns[0][i] !== null);
      parts.push(shape("path", { class: "area", d: `${path}L${x(times.at(-1))} ${y(0)}L${x(times[0])} ${y(0)}Z` }));
    }
  }
  chart.lines.forEach(([, , className], i) => {
    const path = pathOf(columns[i], x, y);
    if (path) parts.push(shape("path", { class: `curve ${className}`, d: path }));
  });
  showReading(chart, columns, span, parts, x, y(0));
  chart.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const last = chart.lines.map(([, label], i) => `${label} ${known(columns[i].at(-1), chart.text)}`).join(", ");
  chart.svg.setAttribute("aria-label", `${chart.title} over the last ${ageText(span)}: now ${last}; peak ${chart.text(peak)}`);
  chart.svg.replaceChildren(...parts);
}

/* Where workers have ended that nobody has asked to. */
function failureMarks(x, base) {
  return (points.worker_failures ?? []).flatMap((failed, i) => {
    if (!failed) return [];
    const at = x(points.time_s[i]);
    const mark = shape("path", { class: "event-mark", d: `M${at - 4} 2h8l-4 7Z` });
    mark.append(shape("title", {}, `${counted(failed, "worker")} ended unasked`));
    return [shape("line", { class: "event", x1: at, x2: at, y1: EDGE.top, y2: base }), mark];
  });
}

function showReading(chart, columns, span, parts, x, base) {
  const i = pointed === null ? points.time_s.length - 1 : nearestPoint(nowAt - (1 - pointed) * span);
  chart.values.forEach((value, line) => { value.textContent = known(columns[line][i], chart.text); });
  if (pointed === null || i < 0) {
    const values = columns[0].filter((value) => value !== null);
    chart.reading.textContent = values.length ? `peak ${chart.text(Math.max(...values))}` : "nothing yet";
    return;
  }
  const at = x(points.time_s[i]);
  parts.push(shape("line", { class: "cursor", x1: at, x2: at, y1: EDGE.top, y2: base }));
  chart.reading.textContent = agoText(nowAt - points.time_s[i]);
}

const drawCharts = () => CHARTS.forEach(drawChart);

function takeHistory(document) {
  const { columns, length_s: length, is_whole: isWhole, interval_s: interval_s } = document.history;
  nowAt = document.time_s;
  interval = interval_s;
  if (isWhole) {
    points = columns;
  } else if (columns.time_s.length && columns.time_s[0] > (points.time_s.at(-1) ?? -1)) {
    for (const name of Object.keys(columns)) (points[name] ??= []).push(columns[name][0]);
    while (points.time_s[0] < nowAt - length) for (const column of Object.values(points)) column.shift();
  }
}

/* --- What a document says ------------------------------------------------------------------------------ */

const MOST_PROBLEMS = 8;
const PHASES = { starting: "Starting", stopping: "Stopping", withdrawn: "Withdrawn: no workers for now" };
let verdict = null;     // of the last document: text and state

function judge({ problems, ready, server }) {
  const severe = problems.filter((problem) => problem.is_severe).length;
  const state = severe ? "bad" : problems.length ? "warn" : "good";
  if (PHASES[server.phase]) return [PHASES[server.phase], server.phase === "starting" ? "warn" : state];
  if (!ready.is_well) return ["Not ready", "bad"];
  if (severe) return [severe === 1 ? "Serving, but something is wrong" : `Serving, but ${severe} things are wrong`, state];
  if (problems.length) return [`Serving, with ${counted(problems.length, "thing")} to look at`, state];
  return ["All is well", state];
}

function showVerdict(status) {
  const { problems, live, ready, server } = status;
  verdict = judge(status);
  setText("verdict-text", verdict[0]);
  byId("verdict").dataset.state = verdict[1];
  document.title = `${verdict[1] === "good" ? "" : "! "}${verdict[0]} – fastasgi`;
  if (hasChanged("problems", problems)) {
    const items = problems.slice(0, MOST_PROBLEMS).map(({ text, is_severe }) => element("li", visible(text), is_severe ? "severe" : ""));
    if (problems.length > MOST_PROBLEMS) items.push(element("li", `and ${count(problems.length - MOST_PROBLEMS)} more`));
    byId("problems").replaceChildren(...items);
    byId("problems").hidden = !items.length;
  }
  const health = [ready.is_well ? `Ready: ${ready.reason}` : "Not ready", live.is_well ? `live: ${live.reason}` : "not live"];
  setText("summary", `${visible(health.join("; "))}. Up ${ageText(server.uptime_s)}, fastasgi ${server.fastasgi}, Python ${server.python}.`);
  setText("name", visible(server.name));
}

function setTile(id, value, more, kind = "") {
  setText(id, value);
  setText(`${id}-more`, more);
  byId(id).className = kind;
}

const three = ({ p50_s, p95_s }) => `p50 ${known(p50_s, timeText)}, p95 ${known(p95_s, timeText)}`;

function showTiles({ now, totals }) {
  const kinds = Object.entries(now.open).map(([name, by]) => [name, (by.plain ?? 0) + (by.tls ?? 0)]);
  const tls = Object.values(now.open).reduce((sum, by) => sum + (by.tls ?? 0), 0);
  const open = kinds.filter(([name, value]) => value && name !== "none")
    .map(([name, value]) => `${count(value)} ${name === "ws" ? counted(value, "WebSocket").split(" ")[1] : `HTTP/${name}`}`);
  if (tls) open.push(`${count(tls)} with TLS`);
  setTile("rate", known(now.requests_per_s, rateText), `${count(totals.requests)} since the start`);
  setTile("errors", known(now.error_share, shareText), `${known(now.exceptions_per_s, rateText)} exceptions, ${known(now.refusals_per_s, rateText)} refusals`,
    now.error_share >= 0.01 ? "bad" : "");
  setTile("first-byte", known(now.first_byte.p99_s, timeText), three(now.first_byte));
  setTile("duration", known(now.duration.p99_s, timeText), three(now.duration));
  setTile("running", count(now.running), now.is_shedding ? "overload: new ones are refused" : totals.sheds ? `overloaded ${counted(totals.sheds, "time")}` : "never overloaded",
    now.is_shedding ? "bad" : "");
  setTile("connections", count(now.connections), open.join(", ") || "none in use");
  setTile("busy", known(now.busy_share, shareText), `garbage collection ${known(now.gc_share, shareText)}`, now.busy_share > 0.9 ? "bad" : "");
  setTile("lag", known(now.lag.p99_s, timeText), three(now.lag), now.lag.p99_s >= 1 ? "bad" : "");
}

const STATES = { serving: "good", failed: "bad", condemned: "bad", retiring: "warn", leaving: "warn", starting: "warn", none: "" };
const CAUSES = { asked: "asked to", limit: "at a limit", stall: "blocked too long", overdue: "too slow to end", not_started: "failed to start", exit: "by itself", other_signal: "by a signal" };

function workerState(worker) {
  const blocked = worker.blocked_s > 0;
  const state = worker.state === "none" ? "no process" : worker.state;
  const parts = [badge(blocked ? `blocked for ${ageText(worker.blocked_s)}` : state, blocked ? "bad" : STATES[worker.state] ?? "")];
  if (worker.age_s !== null) parts.push(small(`${blocked ? `${state}, ` : ""}${ageText(worker.age_s)} old`));
  for (const other of worker.processes.slice(1)) parts.push(small(`also ${other.state}: ${other.pid}`));
  const stands = worker.processes.find((process) => process.stands_at);
  if (stands) parts.push(small(visible(stands.stands_at)));
  if (worker.is_shedding) parts.push(small("overload: refuses new requests"));
  return parts;
}

function workerEnds({ starts, ends }) {
  const causes = Object.entries(ends).map(([name, value]) => `${count(value)} ${CAUSES[name] ?? name}`);
  return [count(Math.max(0, starts - 1)), small(causes.join(", ") || "no process has ended")];
}

const WORKER_COLUMNS = [
  ["Worker", "name", (each) => [`Worker ${each.slot}`, small(each.processes.length ? `pid ${each.processes[0].pid}` : "no process")]],
  ["State", "pair", workerState],
  ["Load", "figure", (each) => [known(each.busy_share, shareText), bar(each.busy_share ?? 0, each.busy_share > 0.9)]],
  ["Lag, p99", "figure", (each) => known(each.lag_p99_s, timeText)],
  ["Requests", "figure", (each) => [known(each.requests_per_s, rateText), small(`${count(each.requests)} in all`)]],
  ["Running", "figure", (each) => count(each.running)],
  ["Connections", "figure", (each) => [count(each.connections), small(counted(each.websockets, "WebSocket"))]],
  ["Exceptions", "figure", (each) => count(each.exceptions)],
  ["Memory", "figure", (each) => (each.resident_bytes ? bytesText(each.resident_bytes) : "–")],
  ["Descriptors", "figure", (each) => (each.descriptors === 0 ? "–" : [count(each.descriptors), small(each.descriptors_limit ? `of ${count(each.descriptors_limit)}` : "no limit")])],
  ["Restarts", "figure causes", workerEnds],
];

function stackText({ where, is_held: isHeld }) {
  const frames = where.map(visible).join("\n");
  const held = "C code has held the interpreter, so that nobody could look where it stands.";
  return [isHeld ? held : "", frames || (isHeld ? "" : "Its stack could not be had.")].filter(Boolean).join("\n");
}

function showStalls(stalls) {
  if (!hasChanged("stalls", stalls)) return;
  const place = byId("stalls");
  const open = new Map([...place.children].map((each) => [each.dataset.key, each.open]));
  const focused = document.activeElement?.closest?.("#stalls details")?.dataset.key;
  byId("stalls-empty").hidden = stalls.length > 0;
  place.replaceChildren(...stalls.map((stall, i) => {
    const key = `${stall.slot} ${stall.at}`;
    const made = element("details");
    made.dataset.key = key;
    made.open = open.get(key) ?? i === 0;
    const lasted = stall.is_over ? `stood for ${timeText(stall.duration_s)}` : `has stood for more than ${timeText(stall.duration_s)}`;
    const head = element("summary", [moment(stall.at), `, worker ${stall.slot} `, element("strong", lasted), ": "]);
    head.append(stall.request ? code(stall.request) : "no request");
    made.append(head, element("pre", stackText(stall)));
    return made;
  }));
  [...place.children].find((each) => each.dataset.key === focused)?.firstChild.focus();
}

const REFUSAL_COLUMNS = [
  ["When", "", (each) => [moment(each.at)]],
  ["Status", "figure", (each) => (each.status ? String(each.status) : "none")],
  ["Client", "mono", (each) => visible(each.client) || "–"],
  ["Why", "full", (each) => [visible(each.reason), small(words(each.kind))]],
  ["Request", "mono full", (each) => (each.method || each.path ? visible(`${each.method} ${each.path}`) : "not known yet")],
];
const FEW = 6;
let allRefusals = false;
let refusals = [];

function showRefusals(records) {
  refusals = records;
  fillTable("refusals", REFUSAL_COLUMNS, allRefusals ? records : records.slice(0, FEW));
  const button = byId("refusals-more");
  button.hidden = records.length <= FEW;
  button.setAttribute("aria-expanded", String(allRefusals));
  setText("refusals-more", allRefusals ? `Show the last ${FEW}` : `Show all ${count(records.length)} that are kept`);
}

byId("refusals-more").addEventListener("click", () => {
  allRefusals = !allRefusals;
  showRefusals(refusals);
});

const QUEUE_COLUMNS = [
  ["Address", "mono", (each) => visible(each.address)],
  ["Waiting", "figure", (each) => [count(each.length), bar(each.limit ? each.length / each.limit : 0, each.length * 2 >= each.limit)]],
  ["Limit", "figure", (each) => count(each.limit)],
];
const CERTIFICATE_COLUMNS = [
  ["Names", "", (each) => [visible(each.names.join(", ")) || "none", small(visible(each.file))].concat(each.error ? [element("small", visible(`Not read again: ${each.error}`), "bad")] : [])],
  ["Left", "figure", (each) => {
    const days = Math.floor(each.days_left);
    const left = element("span", days < 0 ? "expired" : counted(days, "day"), each.days_left < 3 ? "bad" : each.days_left < 14 ? "warn" : "");
    return [left, small(new Date(each.expires_at * 1000).toLocaleDateString())];
  }],
];
const COLLECTION_COLUMNS = [
  ["Generation", "", (each) => String(each.generation)],
  ["Pauses", "figure", (each) => count(each.pauses)],
  ["In all", "figure", (each) => timeText(each.total_s)],
  ["Each", "figure", (each) => (each.pauses ? timeText(each.total_s / each.pauses) : "–")],
];
const SETTING_COLUMNS = [
  ["Setting", "mono", ([name]) => name],
  ["Value", "mono", ([, value]) => visible(value)],
];

function showTotals({ totals, server }) {
  const list = (counts, name) => Object.entries(counts).filter(([, value]) => value).map(([key, value]) => `${count(value)} ${name(key)}`).join(", ") || "none";
  const rows = [
    ["Started", clockText(server.started_at)],
    ["Responses", list(totals.responses, (name) => (name === "aborted" ? "client left" : name))],
    ["By protocol", list(totals.protocols, (name) => (name === "ws" ? "WebSocket" : `HTTP/${name}`))],
    ["Exceptions", count(totals.exceptions)],
    ["Connections", list(totals.accepted, (name) => (name === "tls" ? "with TLS" : "without TLS"))],
    ["Received, sent", `${bytesText(totals.received_bytes)}, ${bytesText(totals.sent_bytes)}`],
    ["WebSocket messages", `${count(totals.messages_received)} received, ${count(totals.messages_sent)} sent`],
    ["Timeouts", list(totals.timeouts, words)],
    ["Stalls", totals.stalls ? `${count(totals.stalls)}, ${timeText(totals.stalled_s)} in all` : "none"],
    ["Overload", totals.sheds ? counted(totals.sheds, "time") : "never"],
    ["Workers ended", list(totals.ends, (name) => CAUSES[name] ?? name)],
  ];
  if (hasChanged("totals", rows)) pairs("totals", rows.flatMap(([term, value]) => [element("dt", term), element("dd", value)]));
}

function show(status) {
  takeHistory(status);
  showVerdict(status);
  showTiles(status);
  drawCharts();
  fillTable("workers", WORKER_COLUMNS, status.workers);
  showStalls(status.stalls);
  showRefusals(status.refusals);
  const kinds = Object.entries(status.totals.refusals);
  byId("refusal-kinds").hidden = !kinds.length;
  if (kinds.length) byId("refusals-empty").hidden = true;
  if (hasChanged("refusal-kinds", kinds)) {
    pairs("refusal-kinds", kinds.map(([kind, value]) => element("div", [element("dt", words(kind)), element("dd", count(value))])));
  }
  fillTable("queues", QUEUE_COLUMNS, status.queues);
  fillTable("certificates", CERTIFICATE_COLUMNS, status.certificates);
  const collections = status.totals.collections.filter((each) => each.pauses);
  fillTable("collections", COLLECTION_COLUMNS, collections);
  setText("collections-share", `Pauses in which a worker stands still: ${known(status.now.gc_share, shareText)} of the time now.`);
  showTotals(status);
  const settings = Object.entries(status.settings);
  fillTable("settings", SETTING_COLUMNS, settings);
  setText("settings-summary", `Show the ${counted(settings.length, "setting")}`);
}

/* --- The connection ------------------------------------------------------------------------------------ */

const SILENT_MS = 4000;
const AGAIN_MS = 3000;
let source = null;
let heardAt = null;     // by the page's own clock

function setState(state, text) {
  const place = byId("state");
  if (place.dataset.state !== state) place.dataset.state = state;
  setText("state", text);
}

function hear(event) {
  const status = JSON.parse(event.data);
  heardAt = performance.now();
  document.body.classList.remove("is-stale");
  byId("age").hidden = true;
  setState("live", "Live");
  show(status);
}

/* Say how old the figures are once they are not of now. */
function look() {
  if (heardAt === null) return;
  const silent = performance.now() - heardAt;
  if (silent < SILENT_MS) return;
  if (byId("state").dataset.state === "live") setState("lost", "No news");
  document.body.classList.add("is-stale");
  byId("age").hidden = false;
  setText("age", `figures are ${ageText(silent / 1000)} old`);
  byId("verdict").dataset.state = "idle";
  setText("verdict-text", `Not connected; before: ${verdict[0]}`);
  document.title = "! Not connected – fastasgi";
}

/* What a browser does not tell of a stream that it gives up. */
async function learnWhy() {
  try {
    const response = await fetch("status", { cache: "no-store" });
    if (response.status === 401) {
      setState("lost", "Logged out: load the page again");
      return;
    }
    setState("lost", response.ok ? "Too many dashboards are open" : `The listener answers ${response.status}`);
  } catch {
    setState("lost", "Not connected");
  }
  setTimeout(() => { if (source === null && !document.hidden) follow(); }, AGAIN_MS);
}

function follow() {
  source = new EventSource("events");
  for (const name of ["whole", "update"]) source.addEventListener(name, hear);
  source.addEventListener("error", () => {
    setState("lost", "Not connected");
    if (source.readyState !== EventSource.CLOSED) return;
    source = null;
    learnWhy();
  });
}

/* A hidden page holds no connection open: browsers allow only six to one server. */
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    source?.close();
    source = null;
    setState("idle", "Paused");
  } else if (source === null) {
    follow();
  }
});

const grid = element("div", CHARTS.map(makeChart), "chart-grid");
byId("charts").append(grid);
new ResizeObserver(drawCharts).observe(grid);
setInterval(look, 1000);
follow();
}
