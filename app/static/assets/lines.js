// Many lines: sent in batches below the service's limits, shown as a table and a histogram, and handed out as CSV.

import { ask } from "./api.js";
import { drawHistogram } from "./charts.js";
import { csv } from "./csv.js";
import { $, count, make, percent, plural, says } from "./dom.js";

const ITEMS = 64; // a request: the service's own limit is 256 where nobody has set another
const BYTES = 96 * 1024; // likewise 512 KiB; where the limits are lower, requests become smaller
const PAGE = 100; // rows of the table at a time
const COLUMNS = [
  "line",
  "text",
  "text_pair",
  "label",
  "labels", // of a model that gives several, as JSON
  "score",
  "exit_index",
  "num_blocks",
  "flops",
  "flops_full",
  "flops_saved_ratio",
  "tokens",
  "truncated",
  "delta",
  "entropy_threshold",
  "model",
  "error",
];

let running = null;
let done = []; // {line, item, result}: the answer or the problem of each line

/** await options() -> the fields that all items of a request share; fail(error) shows what stopped everything. */
export function setUpLines({ options, fail }) {
  $("many-form").addEventListener("submit", (event) => {
    event.preventDefault();
    run(options, fail);
  });
  $("lines").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("many-form").requestSubmit();
  });
  $("stop").addEventListener("click", () => running?.abort());
  $("more").addEventListener("click", () => showRows($("rows").tBodies[0].rows.length + PAGE));
  $("csv").addEventListener("click", download);
}

async function run(options, fail) {
  const texts = $("lines")
    .value.replace(/[\r\n]+$/, "")
    .split(/\r?\n/);
  if (texts.length === 1 && !texts[0]) return void $("lines").focus();
  running?.abort();
  const { signal } = (running = new AbortController());
  const answered = [];
  busy(true);
  progress(0, texts.length);
  try {
    const shared = await options(); // a model that was chosen just now may make tabs part texts
    const waiting = texts.map((text, i) => ({ line: i + 1, item: { ...split(text), ...shared } }));
    for await (const lines of answers(waiting, signal)) {
      answered.push(...lines);
      progress(answered.length, texts.length);
    }
  } catch (error) {
    if (running?.signal !== signal) return; // a newer run has taken over
    if (!signal.aborted) fail(error);
    $("progress-says").textContent = `Stopped after ${count(answered.length)} of ${plural(texts.length, "line")}.`;
  }
  busy(false);
  done = answered.sort((a, b) => a.line - b.line);
  show();
}

function split(text) {
  const tab = $("tabs").checked ? text.indexOf("\t") : -1;
  return tab < 0 ? { text } : { text: text.slice(0, tab), text_pair: text.slice(tab + 1) };
}

/** The lines with their results, as they come; a line that finds the queue full goes again. */
async function* answers(waiting, signal) {
  const onWait = (error, seconds) => {
    $("progress-says").textContent = `${error.message}; going on in ${seconds} s`;
  };
  let most = ITEMS;
  while (waiting.length) {
    const chunk = cut(waiting, most);
    let results;
    try {
      ({
        body: { results },
      } = await ask("classify/batch", { body: { items: chunk.map(({ item }) => item) }, signal, onWait }));
    } catch (error) {
      if (error.status !== 413) throw error;
      if (chunk.length > 1) {
        most = Math.ceil(chunk.length / 2); // the limits are lower here
        continue;
      }
      results = [{ status: 413, detail: error.message }];
    }
    const found = chunk.map((line, i) => ({ ...line, result: results[i] }));
    const refused = found.filter(({ result }) => result.status === 503); // never all: that is a 503 of the whole
    if (refused.length) most = Math.max(1, found.length - refused.length);
    waiting = [...refused, ...waiting.slice(chunk.length)];
    yield found.filter((line) => !refused.includes(line));
  }
}

function cut(waiting, most) {
  const encoder = new TextEncoder();
  let bytes = 0;
  let n = 0;
  while (n < Math.min(most, waiting.length)) {
    bytes += encoder.encode(JSON.stringify(waiting[n].item)).length;
    if (n && bytes > BYTES) break;
    n++;
  }
  return waiting.slice(0, n);
}

function busy(is) {
  $("run").disabled = is;
  $("stop").hidden = !is;
}

function progress(answered, all) {
  $("progress").hidden = false;
  $("bar").max = all;
  $("bar").value = answered;
  const says = answered < all ? `${count(answered)} of ${plural(all, "line")}` : `${plural(all, "line")} done`;
  $("progress-says").textContent = says;
}

function show() {
  const good = done.map(({ result }) => result).filter((result) => result.label !== undefined);
  $("results").hidden = !done.length;
  if (!done.length) return;
  const labels = new Map();
  for (const answer of good)
    for (const label of answer.labels ?? [answer.label]) labels.set(label, (labels.get(label) ?? 0) + 1);
  const sum = (name) => good.reduce((total, answer) => total + answer[name], 0);
  const totals = [
    ...[...labels]
      .sort(([, a], [, b]) => b - a)
      .slice(0, 6)
      .map(([label, n]) => [label, count(n)]),
    ["errors", count(done.length - good.length)],
    ["FLOPs saved", good.length ? percent(sum("flops_saved") / sum("flops_full")) : "none"],
    ["mean exit", good.length ? (sum("exit_index") / good.length).toFixed(2) : "none"],
  ];
  $("totals").replaceChildren(
    ...totals.map(([name, value]) =>
      make("div", {}, make("dt", { textContent: name }), make("dd", { textContent: value })),
    ),
  );
  const counts = Array(good[0]?.num_blocks ?? 1).fill(0);
  for (const { exit_index } of good) counts[exit_index - 1]++;
  drawHistogram({ counts });
  $("histogram").ariaLabel =
    "Bar chart of lines by the block they left after: " + counts.map((n, i) => `block ${i + 1}: ${n}`).join(", ") + ".";
  $("rows").tBodies[0].replaceChildren();
  showRows(PAGE);
}

function showRows(upTo) {
  const body = $("rows").tBodies[0];
  body.append(...done.slice(body.rows.length, upTo).map(row));
  const left = done.length - body.rows.length;
  $("more").hidden = !left;
  $("more").textContent = `Show ${count(Math.min(left, PAGE))} more of ${count(left)} (the CSV has all)`;
}

function row({ line, item, result }) {
  const text = item.text_pair === undefined ? item.text : `${item.text} | ${item.text_pair}`;
  const head = [
    make("td", { className: "number", textContent: String(line) }),
    make("td", { className: "text", textContent: text.trim() ? text : "(blank)" }),
  ];
  if (result.label === undefined) {
    return make("tr", { className: "bad" }, ...head, make("td", { colSpan: 4, textContent: result.detail }));
  }
  const cells = make(
    "span",
    { className: "pips", "aria-hidden": "true" },
    ...Array.from({ length: result.num_blocks }, (_, i) => make("i", { className: i < result.exit_index ? "on" : "" })),
  );
  return make(
    "tr",
    {},
    ...head,
    make("td", {}, make("b", { textContent: says(result) })),
    make("td", { className: "number", textContent: result.labels ? "" : percent(result.score) }),
    make("td", { className: "exit" }, String(result.exit_index), cells),
    make("td", { className: "number", textContent: percent(result.flops_saved_ratio, 0) }),
  );
}

function download() {
  const several = done.some(({ result }) => result.labels);
  const columns = COLUMNS.filter((name) => several || name !== "labels");
  const rows = done.map(({ line, item, result }) =>
    columns.map((name) => {
      if (name === "line") return line;
      if (name === "text" || name === "text_pair") return item[name];
      if (name === "error") return result.label === undefined ? result.detail : null;
      if (name === "labels") return result.labels ? JSON.stringify(result.labels) : null;
      return result.label === undefined ? null : result[name];
    }),
  );
  const url = URL.createObjectURL(new Blob([csv(columns, rows)], { type: "text/csv;charset=utf-8" }));
  make("a", { href: url, download: "beexformer.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
