// The page: what is chosen (text, model, delta), when the service is asked, and who shows the answer.

import { ApiError, ask, pause, useKey } from "./api.js";
import { showCurve } from "./curve.js";
import { deltaAt, LEFT, meaning, meaningOfSure, NEVER, positionOf, request, RIGHT, show } from "./delta.js";
import { $, make, percent, plural, says } from "./dom.js";
import { examplesOf, firstOf, linesOf } from "./examples.js";
import { setUpLines } from "./lines.js";
import { showCost, showForward } from "./forward.js";

const TYPING = 250; // ms without a key before a text is sent
const SLIDING = 90;
const TIMES = 3; // that a text is asked for, once it stands: one time alone says little
const RESTING = 400; // ms until then
const AGAIN = 3000; // between looks for a service that does not answer
const NEED_MODEL = ["delta", "delta-number", "sure", "pair-toggle", "fill", "tabs"]; // and rest until it is described

let model = null; // the description of the chosen one, with `blocks`
let describing = new AbortController(); // the model that was chosen last; older ones are aborted and never shown
let described = null; // the promise of that, while it is on its way
let delta = null; // null: the model's default
let sure = null; // the entropy threshold; 0: none; null: the model's default
let full = { key: "", found: null }; // the last answer at full depth: moving delta does not change it
let asking = new AbortController(); // of the newest question; older ones are aborted and never shown
let timer = 0;
let suggested = { text: "", pair: "" }; // the example that stands there because nobody has typed yet

const unknown = () => model?.name !== $("model").value;
const effective = () => delta ?? model.default_delta;
const fields = () => request(delta, sure, model.blocks);
const candidates = () => {
  const labels = model.candidate_labels ? $("labels").value.split(",").map((label) => label.trim()).filter(Boolean) : [];
  return labels.length > 1 ? { candidate_labels: labels } : {}; // one alone is still being typed
};
const fieldsOfFull = () => request(NEVER, 0, model.blocks);

function later(milliseconds) {
  clearTimeout(timer);
  asking.abort();
  timer = setTimeout(classify, milliseconds);
}

async function classify() {
  clearTimeout(timer);
  if (unknown()) return void (described ?? describe()); // which asks, once it knows the model
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const text = $("text").value;
  const pair = $("pair-field").hidden ? "" : $("pair").value;
  if (!text.trim() || (model.input === "pair" && !pair.trim())) {
    state("empty");
    return void notice("");
  }
  const body = {
    text,
    model: model.name,
    ...(pair ? { text_pair: pair } : {}),
    ...candidates(),
    cost: true,
  };
  const key = JSON.stringify(body);
  const chosen = effective();
  try {
    const here = await question({ ...body, ...fields() }, signal);
    notice("");
    state("shown");
    if (sure === null) showSure((delta === null && here.answer.entropy_threshold) || 0);
    const known = full.key === key ? full.found : null;
    showForward(here, known, chosen);
    if (!known) {
      full = {
        key,
        found: chosen === NEVER ? here : await question({ ...body, ...fieldsOfFull() }, signal),
      };
      showForward(here, full.found, chosen);
    }
    announce(here.answer, full.found.answer);
    await pause(RESTING, signal);
    const pairs = [
      [here, fields()],
      [full.found, fieldsOfFull()],
    ];
    for (let i = 1; i < TIMES; i++) {
      // in turn, so that what else happens on the machine meets both
      for (const [found, asked] of pairs) {
        if (found.ms.length <= i) found.ms.push(...(await question({ ...body, ...asked }, signal)).ms);
      }
    }
    showCost(here, full.found, chosen, true);
  } catch (error) {
    if (!signal.aborted) fail(error, classify);
  }
}

async function question(body, signal) {
  const { body: answer, timing } = await ask("classify", { body, signal, onWait: waiting });
  signal.throwIfAborted();
  // what labels are called is read once, whatever the text: no part of what leaving early saves
  const { candidate_flops: once = 0 } = answer;
  answer.flops -= once;
  answer.flops_full -= once;
  answer.flops_saved_ratio = answer.flops_saved / answer.flops_full;
  return { answer, ms: timing.compute === undefined ? [] : [timing.compute] };
}

function announce(here, there) {
  const left = here.num_blocks - here.exit_index;
  $("status").textContent =
    `${spoken(here)}. ` +
    (left
      ? `Left after block ${here.exit_index} of ${here.num_blocks}, ` +
        `${percent(here.flops_saved_ratio, 0)} of the FLOPs saved. `
      : `Ran all ${plural(here.num_blocks, "block")}. `) +
    `At full depth: ${spoken(there)}.`;
}

const spoken = (answer) => says(answer) + (answer.labels ? "" : `, ${percent(answer.score)}`);

/** Say what went wrong, and see to it that it goes on by itself where it can. */
function fail(error, retry) {
  if (!(error instanceof ApiError)) throw error;
  state("stale");
  if (error.status === 401) {
    notice("");
    $("key-form").hidden = false;
    $("key").focus();
    $("key-form").onsubmit = (event) => {
      event.preventDefault();
      useKey($("key").value);
      $("key").value = "";
      $("key-form").hidden = true;
      retry();
    };
    return;
  }
  const gone = error.status === 0 || error.status === 502;
  notice(gone ? `${error.message} This page looks for it every few seconds.` : error.message);
  if (gone) comeBack(retry);
}

async function comeBack(retry) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  try {
    for (;;) {
      await pause(AGAIN, signal);
      try {
        await ask("readyz", { signal, onWait: waiting });
        return void retry();
      } catch (error) {
        if (signal.aborted || !(error instanceof ApiError)) throw error;
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error; // else somebody typed: that question looks for the service itself
  }
}

const waiting = (error, seconds) => notice(`${error.message}. Going on by itself in ${seconds} s.`);

function state(name) {
  for (const id of ["answer", "cost"]) $(id).dataset.state = name;
}

function notice(text) {
  $("notice").hidden = !text;
  if ($("notice").textContent !== text) $("notice").textContent = text;
}

function choose(value, { milliseconds = 0, typed = false } = {}) {
  delta = value;
  const chosen = effective();
  $("delta").value = positionOf(chosen);
  $("delta").setAttribute("aria-valuetext", chosen === NEVER ? show(chosen) : `delta ${chosen}`);
  if (!typed) $("delta-number").value = chosen === NEVER ? "" : String(chosen);
  $("delta-number").placeholder = chosen === NEVER ? "never" : "";
  $("delta-says").textContent = meaning(chosen, model.blocks);
  $("delta-default").hidden = delta === null && sure === null;
  showCurve(model, delta === null && sure === null ? null : chosen, sure ?? 0, pick);
  later(milliseconds);
}

function chooseSure(value, options) {
  sure = value;
  showSure(value ?? 0);
  choose(delta, options);
}

function showSure(value) {
  $("sure").value = value;
  $("sure").setAttribute("aria-valuetext", value ? `entropy threshold ${value}` : "off");
  $("sure-number").textContent = value || "off";
  $("sure-says").textContent = meaningOfSure(value);
}

/** A point of the curve: a delta, and an entropy threshold or 0. */
function pick(point) {
  delta = point.delta;
  chooseSure(point.sure);
}

function setUpDelta() {
  Object.assign($("delta"), { min: LEFT, max: RIGHT, value: 0 });
  const ticks = [
    [LEFT, "never early"],
    [positionOf(-0.01), "\u22120.01"],
    [0, "0"],
    [positionOf(0.01), "0.01"],
    [RIGHT, "after block 1"],
  ];
  for (const [position, text] of ticks) {
    const tick = make("span", { textContent: text });
    tick.style.setProperty("--at", (position - LEFT) / (RIGHT - LEFT));
    $("delta-ticks").append(tick);
  }
  $("delta").addEventListener("input", () => choose(deltaAt(Number($("delta").value)), { milliseconds: SLIDING }));
  $("delta-number").addEventListener("input", () => {
    const { value, valueAsNumber, validity } = $("delta-number");
    if (validity.badInput) notice("delta is a number, for example 0.05 or -0.001");
    else choose(value === "" ? null : valueAsNumber, { milliseconds: TYPING, typed: true });
  });
  $("delta-number").addEventListener("change", () => {
    if ($("delta-number").value === "") choose(delta);
  });
  $("sure").addEventListener("input", () => chooseSure($("sure").valueAsNumber, { milliseconds: SLIDING }));
  $("delta-default").addEventListener("click", () => {
    delta = null;
    chooseSure(null);
    $("delta").focus();
  });
}

function grow() {
  $("text").style.height = "";
  $("text").style.height = `${Math.min($("text").scrollHeight + 2, 320)}px`;
}

function showPair(shown) {
  $("pair-field").hidden = !shown;
  $("pair-toggle").setAttribute("aria-expanded", String(shown));
  $("pair-toggle").textContent = shown ? "Without the second text" : "Add a second text";
}

/** Models of single texts or of pairs take nothing else; what is not known takes both. */
function showInput() {
  $("pair-toggle").hidden = model.input === "pair" || model.input === "text";
  showPair(model.input === "pair" || (model.input !== "text" && $("pair").value !== ""));
  $("tabs").checked = model.input === "pair";
}

function showLabels() {
  $("labels-field").hidden = !model.candidate_labels;
}

function showExamples() {
  const [, text, pair = ""] = firstOf(model);
  const untouched = ([id, example]) => $(id) !== document.activeElement && ["", example].includes($(id).value);
  if (Object.entries(suggested).every(untouched)) {
    // nobody has typed or is about to: the text of another model would say nothing of this one
    suggested = { text, pair };
    [$("text").value, $("pair").value] = [text, pair];
    grow();
  }
  $("examples").replaceChildren(
    ...examplesOf(model).map(([kind, text, pair = ""]) =>
      make(
        "li",
        {},
        make("button", {
          type: "button",
          className: "chip",
          title: [text, pair].filter(Boolean).join("\n"),
          textContent: kind,
          onclick: () => {
            $("text").value = text;
            $("pair").value = pair;
            showPair(pair !== "" || model.input === "pair");
            grow();
            later(0);
          },
        }),
      ),
    ),
  );
}

function setUpText() {
  grow();
  $("text").addEventListener("input", () => {
    grow();
    later(TYPING);
  });
  $("pair").addEventListener("input", () => later(TYPING));
  $("labels").addEventListener("input", () => later(TYPING));
  $("pair-toggle").addEventListener("click", () => {
    const shown = $("pair-field").hidden;
    showPair(shown);
    if (shown) $("pair").focus();
    if ($("pair").value) later(0);
  });
  $("fill").addEventListener("click", () => {
    $("lines").value = linesOf(model).join("\n");
    $("run").focus();
  });
}

/** Get to know the chosen model, and before the first one which there are. What depends on it rests meanwhile: what
 *  comes would undo a click. */
function describe() {
  clearTimeout(timer);
  asking.abort(); // that is of the model before
  describing.abort();
  describing = new AbortController();
  const { signal } = describing;
  for (const id of NEED_MODEL) $(id).disabled = true;
  described = (async () => {
    try {
      if (!$("model").value) showModels(await get("models", signal));
      showModel(await get(`models/${encodeURIComponent($("model").value)}`, signal));
      described = null;
    } catch (error) {
      if (signal.aborted) return described; // the newer one
      described = null;
      fail(error, describe);
    }
  })();
  return described;
}

async function get(path, signal) {
  const { body } = await ask(path, { signal, onWait: waiting });
  signal.throwIfAborted();
  notice("");
  return body;
}

function showModels({ models }) {
  $("model").replaceChildren(...models.map(({ name }) => make("option", { value: name, textContent: name })));
  $("model").value = models.find((each) => each.default).name;
  $("model-field").hidden = models.length < 2;
}

function showModel(body) {
  model = { ...body, blocks: body.config.n_block };
  const classes = model.labels.length > 12 ? plural(model.labels.length, "class", "classes") : model.labels.join(", ");
  $("about").textContent =
    `Model ${model.name}: ${classes}${model.thresholds ? ", any number of them a text" : ""}; ${model.blocks} blocks, ` +
    `${(model.size_bytes / 1e6).toFixed(1)} MB.` +
    (model.learned_from === "labels"
      ? " Made of what its classes are called, without a labelled row: nothing of it was measured, and scores are no " +
        "probabilities."
      : "");
  $("delta-default").textContent = `the model\u2019s default, ${show(model.default_delta)}`;
  for (const id of NEED_MODEL) $(id).disabled = false;
  showExamples();
  showInput();
  showLabels();
  chooseSure(sure);
}

setUpText();
setUpDelta();
setUpLines({
  options: async () => {
    if (unknown()) await (described ?? describe());
    return unknown() ? { model: $("model").value || undefined } : { model: model.name, ...candidates(), ...fields() };
  },
  fail: (error) =>
    fail(error, () => {
      later(0); // the text's question was given up for it
      $("many-form").requestSubmit();
    }),
});
$("model").addEventListener("change", describe);
describe();
