// The model's delta curve, as it was measured at training, with the chosen delta on it.

import { drawCurve } from "./charts.js";
import { NEVER, positionOf, show } from "./delta.js";
import { $, count, fillTable, make, percent } from "./dom.js";

const SHARES = { accuracy: "accuracy", f1: "F1", macro_f1: "macro F1" }; // metrics that are written as percent

/** model: the description from /models/{name}; pick(delta) chooses another one. */
export function showCurve(model, delta, pick) {
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
    { delta: NEVER, name: "never early", x: 0, y: dev.full_depth_score },
    ...dev.delta_curve.map((point) => ({
      delta: point.delta,
      name: `delta ${show(point.delta)}`,
      x: point.flops_saved_ratio,
      y: point.score,
    })),
  ];
  const error = dev.metric === "accuracy" ? Math.sqrt((dev.score * (1 - dev.score)) / dev.rows) : null;
  const { here, says } = place(points, delta, metric, score);
  const labels = { x: "FLOPs saved", y: metric };
  $("curve-axis").textContent = `${metric[0].toUpperCase()}${metric.slice(1)} against FLOPs saved`;
  $("curve-says").textContent =
    `Measured on ${count(dev.rows)} labelled rows held out of the training of ${model.name}; each point is a delta. ` +
    (error
      ? `One standard error is ${(error * 100).toFixed(1)} points, so points within the band can hardly be told apart. `
      : "") +
    "Click one to use it.";
  $("curve-here").textContent = says;
  $("key-band").hidden = !error;
  $("curve").ariaLabel =
    `Scatter chart of ${metric} against FLOPs saved, along delta. ${says} The table has all points.`;
  drawCurve({ points, here, error, percent: share, labels, pick });
  fillTable(
    $("curve-table"),
    ["delta", metric, "FLOPs saved", ""],
    points.map((point) => [
      show(point.delta),
      score(point.y),
      percent(point.x),
      make("button", {
        type: "button",
        className: "link",
        textContent: "use",
        "aria-label": `use ${point.name}`,
        onclick: () => pick(point.delta),
      }),
    ]),
  );
}

/** Where delta lies: on a measured point, between two, or outside of what was measured. */
function place(points, delta, metric, score) {
  const exact = points.find((point) => point.delta === delta);
  const words = ({ x, y }) => `${metric} ${score(y)} with ${percent(x)} of the FLOPs saved`;
  if (exact) return { here: exact, says: `${exact.name[0].toUpperCase()}${exact.name.slice(1)}: ${words(exact)}.` };
  const measured = points.slice(1);
  const after = measured.findIndex((point) => point.delta > delta);
  if (after < 1) {
    const [end] = after === 0 ? measured : measured.slice(-1);
    return { here: null, says: `Not measured at delta ${show(delta)}; the nearest is ${end.name}.` };
  }
  const [low, high] = [measured[after - 1], measured[after]];
  const [from, to] = [positionOf(low.delta), positionOf(high.delta)];
  const share = to === from ? 0 : Math.min(Math.max((positionOf(delta) - from) / (to - from), 0), 1);
  const here = { x: low.x + (high.x - low.x) * share, y: low.y + (high.y - low.y) * share };
  return {
    here,
    says:
      `Delta ${show(delta)}: about ${words(here)}, ` +
      `between the measured ${show(low.delta)} and ${show(high.delta)}.`,
  };
}
