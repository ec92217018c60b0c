// The model's curves along delta and along the entropy threshold, as they were measured at training, with what is chosen
// on them.

import { drawCurve } from "./charts.js";
import { NEVER, positionOf, show } from "./delta.js";
import { $, count, fillTable, make, percent } from "./dom.js";

const SHARES = { accuracy: "accuracy", f1: "F1", macro_f1: "macro F1", micro_f1: "micro F1" }; // metrics that are written as percent

const threshold = (sure, delta) => `threshold ${sure}, delta ${show(delta)}`;
const ALONE = -1; // the delta that leaves it to the threshold

/** model: the description from /models/{name}; delta: null where the model's own exit options are in effect;
 *  pick({delta, sure}) chooses another point. */
export function showCurve(model, delta, sure, pick) {
  const dev = model.evaluation.dev;
  if (!dev?.delta_curve?.length) {
    $("curve").closest("section").hidden = true;
    return;
  }
  $("curve").closest("section").hidden = false;
  const share = dev.metric in SHARES;
  const metric = SHARES[dev.metric] ?? dev.metric;
  const score = (value) => (share ? percent(value) : value.toFixed(3));
  const points = [
    { delta: NEVER, sure: 0, name: "never early", x: 0, y: dev.full_depth_score },
    ...dev.delta_curve.map((point) => ({
      delta: point.delta,
      sure: 0,
      name: `delta ${show(point.delta)}`,
      x: point.flops_saved_ratio,
      y: point.score,
    })),
  ];
  const thresholds = (dev.entropy_curve ?? []).map((point) => ({
    delta: point.delta,
    sure: point.entropy_threshold,
    name: threshold(point.entropy_threshold, point.delta),
    x: point.flops_saved_ratio,
    y: point.score,
  }));
  const alone = thresholds.filter((point) => point.delta === ALONE);
  const error = dev.metric === "accuracy" ? Math.sqrt((dev.score * (1 - dev.score)) / dev.rows) : null;
  const words = ({ x, y }) => `${metric} ${score(y)} with ${percent(x)} of the FLOPs saved`;
  const asItIs = { x: dev.flops_saved_ratio, y: dev.score };
  const { here, says } =
    delta === null
      ? { here: asItIs, says: `By default: ${words(asItIs)}.` }
      : sure && delta !== NEVER
      ? place(
          thresholds.filter((point) => point.delta === delta),
          sure,
          { of: (point) => point.sure, position: Number, name: threshold(sure, delta), words },
        )
      : place(points, delta, {
          of: (point) => point.delta,
          position: positionOf,
          name: `delta ${show(delta)}`,
          words,
        });
  const labels = { x: "FLOPs saved", y: metric };
  $("curve-axis").textContent = `${capital(metric)} against FLOPs saved`;
  $("curve-says").textContent =
    `Measured on ${count(dev.rows)} labelled rows held out of the training of ${model.name}; each point is a delta` +
    (alone.length ? ", or an entropy threshold at delta \u22121. " : ". ") +
    (error
      ? `One standard error is ${(error * 100).toFixed(1)} points, so points within the band can hardly be told apart. `
      : "") +
    "Click one to use it.";
  $("curve-here").textContent = says;
  $("key-band").hidden = !error;
  $("key-threshold").hidden = !alone.length;
  $("curve").ariaLabel =
    `Scatter chart of ${metric} against FLOPs saved, along delta. ${says} The table has all points.`;
  drawCurve({ points, sure: alone, here, error, percent: share, labels, pick });
  fillTable(
    $("curve-table"),
    ["delta", "threshold", metric, "FLOPs saved", ""],
    [...points, ...thresholds].map((point) => [
      show(point.delta),
      point.sure ? String(point.sure) : "off",
      score(point.y),
      percent(point.x),
      make("button", {
        type: "button",
        className: "link",
        textContent: "use",
        "aria-label": `use ${point.name}`,
        onclick: () => pick(point),
      }),
    ]),
  );
}

/** Where `chosen` lies on a curve of measured points: on one, between two, or outside. `of` reads a point's own value,
 *  `position` makes values even, `name` says what was chosen. */
function place(curve, chosen, { of, position, name, words }) {
  const exact = curve.find((point) => of(point) === chosen);
  if (exact) return { here: exact, says: `${capital(exact.name)}: ${words(exact)}.` };
  const measured = curve.filter((point) => of(point) !== NEVER);
  const after = measured.findIndex((point) => of(point) > chosen);
  if (after < 1) {
    const [end] = after === 0 ? measured : measured.slice(-1);
    return { here: null, says: `Not measured at ${name}${end ? `; the nearest is ${end.name}` : ""}.` };
  }
  const [low, high] = [measured[after - 1], measured[after]];
  const [from, to] = [position(of(low)), position(of(high))];
  const share = to === from ? 0 : Math.min(Math.max((position(chosen) - from) / (to - from), 0), 1);
  const here = { x: low.x + (high.x - low.x) * share, y: low.y + (high.y - low.y) * share };
  const ends = `${show(of(low))} and ${show(of(high))}`;
  return { here, says: `${capital(name)}: about ${words(here)}, between the measured ${ends}.` };
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);
