// One answer as a picture: the verdict, the blocks that ran and those that never ran, and what it cost.

import { drawEntropy } from "./charts.js";
import { NEVER, show } from "./delta.js";
import { $, fillTable, flops, make, milliseconds, nats, percent, plural, says } from "./dom.js";

const SHOWN = 6; // classes with a bar; all of them are in the table below
const SURE = 1e-9; // below this entropy there is nothing left to gain, and the service stops

/** here, full: {answer, ms}, ms being what the engine took each time it was asked; full is null until it has come. */
export function showForward(here, full, delta) {
  const { answer } = here;
  const classes = Object.keys(answer.scores).length;
  const start = answer.labels ? classes * Math.log(2) : Math.log(classes); // of 2^m sets of labels, or m classes
  const entropies = [start, ...answer.entropies];
  const complete = full && [start, ...full.answer.entropies];
  verdict(answer);
  cells(answer, entropies);
  const bars = delta === NEVER ? null : [null, ...entropies.slice(0, -1).map((before) => before * (1 - answer.delta))];
  const sure = answer.entropy_threshold ? answer.entropy_threshold * start : null;
  $("key-sure").hidden = sure === null;
  drawEntropy({ entropies, full: complete, bars, sure, blocks: answer.num_blocks });
  $("entropy").ariaLabel =
    `Line chart: the entropy goes ${entropies.map(nats).join(", ")} and the text leaves there, ` +
    `after block ${answer.exit_index} of ${answer.num_blocks}. The table below has the numbers.`;
  fillTable(
    $("blocks-table"),
    ["block", "entropy", "lowered by", "full depth"],
    Array.from({ length: answer.num_blocks + 1 }, (_, i) => [
      i === 0 ? "start" : String(i),
      i < entropies.length ? nats(entropies[i]) : "not run",
      i && i < entropies.length ? gain(entropies, i, 1) : "",
      complete ? nats(complete[i]) : "",
    ]),
  );
  showCost(here, full, delta);
}

function verdict(answer) {
  const left = answer.num_blocks - answer.exit_index;
  $("label").textContent = says(answer);
  $("left").replaceChildren(
    left ? "left after block " : "ran all ",
    make("b", { textContent: String(answer.exit_index) }),
    left ? ` of ${answer.num_blocks}, ` : " blocks",
    left ? make("b", { textContent: percent(answer.flops_saved_ratio, 0) }) : "",
    left ? " of the work never done" : "",
    answer.truncated ? make("span", { className: "warn", textContent: `cut to ${answer.tokens} tokens` }) : "",
  );
  const ranked = Object.entries(answer.scores).sort(([, a], [, b]) => b - a);
  allClasses(ranked);
  $("scores").replaceChildren(
    ...ranked.slice(0, SHOWN).map(([label, score], i) => {
      const fill = make("span", { className: "fill" });
      fill.style.setProperty("--share", score);
      return make(
        "li",
        { className: (answer.labels ? answer.labels.includes(label) : !i) ? "top" : "" },
        make("span", { textContent: label }),
        make("span", { className: "track", "aria-hidden": "true" }, fill),
        make("span", { className: "number", textContent: percent(score) }),
      );
    }),
  );
}

/** Every class with its score, the highest first, where there are more than have bars; a field finds one by name. */
function allClasses(ranked) {
  $("classes").hidden = ranked.length <= SHOWN;
  $("classes-summary").textContent = `All ${ranked.length} classes`;
  const show = () => {
    const wanted = $("classes-find").value.trim().toLowerCase();
    const found = ranked.filter(([label]) => label.toLowerCase().includes(wanted));
    fillTable(
      $("classes-table"),
      ["class", "score"],
      found.map(([label, score]) => [label, percent(score, 2)]),
    );
  };
  $("classes-find").oninput = show;
  show();
}

function cells(answer, entropies) {
  const { exit_index: exit, num_blocks: blocks } = answer;
  const list = $("cells");
  list.style.setProperty("--columns", blocks + 1);
  list.classList.toggle("dense", blocks > 8);
  const cell = (i) => {
    const state = i > exit ? "skipped" : i === exit ? "exit" : "ran";
    const lowered = i <= exit ? gain(entropies, i, 0) : "";
    const says =
      i > exit
        ? `Block ${i}: not run`
        : `Block ${i}: entropy ${nats(entropies[i])}, lowered by ${lowered}` +
          (i === exit ? ". The text leaves here." : "");
    const made = make(
      "li",
      { className: state },
      make("span", { className: "hex", "aria-hidden": "true" }, make("span", { textContent: String(i) })),
      make("span", { className: "gain", "aria-hidden": "true", textContent: i > exit ? "" : change(entropies, i) }),
      make("span", { className: "unseen", textContent: says }),
    );
    made.style.gridColumn = i + 1;
    return made;
  };
  const skipped = blocks - exit;
  const brace = skipped
    ? make(
        "li",
        { className: "brace", "aria-hidden": "true" },
        make("span", { textContent: skipped > 1 ? `${skipped} blocks not run` : "not run" }),
      )
    : null;
  if (brace) brace.style.gridColumn = `${exit + 2} / -1`;
  list.replaceChildren(
    make(
      "li",
      { className: "start" },
      make("span", { className: "dot", "aria-hidden": "true" }),
      make("span", { className: "gain", "aria-hidden": "true", textContent: "start" }),
      make("span", { className: "unseen", textContent: `Before any block: entropy ${nats(entropies[0])}` }),
    ),
    ...Array.from({ length: blocks }, (_, i) => cell(i + 1)),
    ...(brace ? [brace] : []),
  );
}

/** The fraction by which block i lowered the entropy: what the service compares with delta. */
const lowered = (entropies, i) => (entropies[i - 1] < SURE ? 0 : (entropies[i - 1] - entropies[i]) / entropies[i - 1]);
const gain = (entropies, i, digits) => percent(lowered(entropies, i), digits);
const change = (entropies, i) => {
  const share = -lowered(entropies, i);
  const digits = Math.abs(share) < 0.0095 ? 1 : 0;
  return `${share > 0 ? "+" : ""}${percent(share, digits)}`;
};

/** What the answer cost beside full depth; times are shown once they have all been measured. */
export function showCost(here, full, delta, measured = false) {
  const { answer } = here;
  const rows = [["FLOPs", answer.flops, answer.flops_full, flops]];
  if (here.ms.length)
    rows.push([
      "time, measured",
      ...[here, full].map((found) => (measured ? Math.min(...found.ms) : null)),
      milliseconds,
    ]);
  if (answer.cost)
    rows.push(["time, predicted", answer.cost.predicted_ms, answer.cost.predicted_ms_full, milliseconds]);
  const sure = (answer) => (answer.labels ? "" : ` ${percent(answer.score)}`); // of several labels each has its own
  const verdictOf = (answer) => [make("b", { textContent: says(answer) }), sure(answer)];
  const threshold = answer.entropy_threshold ? `, threshold ${answer.entropy_threshold}` : "";
  $("compare-here").textContent = delta === NEVER ? show(delta) : `delta ${show(answer.delta)}${threshold}`;
  $("compare").tBodies[0].replaceChildren(
    make(
      "tr",
      {},
      make("th", { scope: "row", textContent: "answer" }),
      make("td", {}, ...verdictOf(answer)),
      make("td", {}, ...(full ? verdictOf(full.answer) : ["…"])),
      make("td", { className: "wide" }),
    ),
    make(
      "tr",
      {},
      make("th", { scope: "row", textContent: "blocks" }),
      make("td", { textContent: String(answer.exit_index) }),
      make("td", { textContent: String(answer.num_blocks) }),
      spent(answer.exit_index, answer.num_blocks, (n) => plural(n, "block")),
    ),
    ...rows.map(([name, value, whole, format]) =>
      make(
        "tr",
        {},
        make("th", { scope: "row", textContent: name }),
        make("td", { textContent: value === null ? "…" : format(value) }),
        make("td", { textContent: whole === null ? "…" : format(whole) }),
        value === null ? make("td", { className: "wide" }) : spent(value, whole, format),
      ),
    ),
  );
  const same = Boolean(full) && says(full.answer) === says(answer);
  $("same").textContent = !full
    ? ""
    : same
      ? answer.exit_index === answer.num_blocks
        ? "Nothing was skipped."
        : `Full depth gives the same label${answer.labels ? "s" : ""}.`
      : `Full depth disagrees: ${says(full.answer)}.`;
  $("same").classList.toggle("differs", Boolean(full) && !same);
}

/** A bar of what was spent of the whole, and the rest in words. */
function spent(value, whole, format) {
  const saved = whole - value;
  const share = whole ? Math.min(value / whole, 1) : 1;
  const bar = make("span", { className: "spent", "aria-hidden": "true" }, make("span", { className: "fill" }));
  bar.firstChild.style.setProperty("--share", share);
  const words =
    saved > 0
      ? `${format(saved)} saved, ${percent(saved / whole, 0)}`
      : saved < 0
        ? `${format(-saved)} more`
        : "nothing saved";
  return make(
    "td",
    { className: "wide" },
    make("span", { className: "pair" }, bar, make("span", { textContent: words })),
  );
}
