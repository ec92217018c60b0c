// The three charts, on Chart.js. Each `draw…` makes its chart at the first call and moves it at later ones; colours
// are the style sheet's, read again when they change. Charts are pictures: their text alternatives are the page's.

import { show } from "./delta.js";

const { Chart } = globalThis;
const still = matchMedia("(prefers-reduced-motion: reduce)");
const last = new Map(); // canvas id -> [how to configure it, what with]: to draw again in other colours

const AXIS = 36; // px that the entropy's axis takes: the cells under the chart begin there

Chart.defaults.font.family = "Inter, system-ui, sans-serif";
Chart.defaults.font.size = 12;
Chart.defaults.maintainAspectRatio = false;
Chart.defaults.plugins.legend.display = false;

/** entropies: before any block, then after each one that ran; full: the same at full depth, or null; bars: what each
 *  block had to fall below, or null; sure: below which a text leaves at once, or null; blocks: of the model. */
export const drawEntropy = (data) => draw("entropy", entropy, data);

/** points, sure: [{x, y, delta, sure, name}] measured along delta and along the entropy threshold; here: {x, y} or
 *  null; error: of a score, or null; pick(point). */
export const drawCurve = (data) => draw("curve", curve, data);

/** counts: rows by exit. */
export const drawHistogram = (data) => draw("histogram", histogram, data);

function draw(id, configure, data) {
  last.set(id, [configure, data]);
  const canvas = document.getElementById(id);
  const { datasets, ...config } = configure(data);
  const chart = Chart.getChart(canvas);
  if (!chart) {
    const made = new Chart(canvas, { ...config, data: { labels: config.labels, datasets } });
    return void made;
  }
  chart.options = { ...config.options };
  chart.data.labels = config.labels;
  datasets.forEach((dataset, i) => Object.assign((chart.data.datasets[i] ??= {}), dataset));
  chart.data.datasets.length = datasets.length;
  chart.update(still.matches ? "none" : undefined);
}

function entropy({ entropies, full, bars, sure, blocks }) {
  const ink = palette();
  const labels = ["start", ...Array.from({ length: blocks }, (_, i) => `block ${i + 1}`)];
  const exit = entropies.length - 1;
  return {
    type: "line",
    labels,
    datasets: [
      {
        label: "entropy",
        data: entropies,
        borderColor: ink.honeyDeep,
        borderWidth: 3,
        pointRadius: entropies.map((_, i) => (i === exit ? 7 : 4)),
        pointHoverRadius: 8,
        pointBackgroundColor: entropies.map((_, i) => (i === exit ? ink.honey : ink.surface)),
        pointBorderColor: ink.honeyDeep,
        pointBorderWidth: entropies.map((_, i) => (i === exit ? 3 : 2)),
        order: 1,
      },
      {
        label: "to stay, below",
        data: bars ?? [],
        showLine: false,
        pointStyle: "line",
        pointRadius: 13,
        pointHoverRadius: 13,
        pointBorderColor: ink.muted,
        pointBorderWidth: 2,
        order: 2,
      },
      {
        label: "full depth",
        data: full ?? [],
        borderColor: ink.blue,
        borderWidth: 2,
        borderDash: [3, 4],
        pointRadius: 3,
        pointBackgroundColor: ink.surface,
        pointBorderColor: ink.blue,
        order: 3,
      },
      {
        label: "sure, below",
        data: sure === null ? [] : labels.map(() => sure),
        borderColor: ink.honeyDeep,
        borderWidth: 2,
        borderDash: [6, 5],
        pointRadius: 0,
        order: 4,
      },
    ],
    options: {
      animation: still.matches ? false : { duration: 350 },
      clip: false,
      layout: { padding: { top: 10, bottom: 8 }, autoPadding: false },
      interaction: { mode: "index", intersect: false },
      plugins: { tooltip: tooltip(ink, { label: (item) => `${item.dataset.label} ${item.parsed.y.toPrecision(3)}` }) },
      scales: {
        x: { offset: true, ticks: { display: false }, grid: { display: false }, border: { display: false } },
        y: {
          min: 0,
          max: entropies[0],
          afterFit: (scale) => {
            scale.width = AXIS;
          },
          afterBuildTicks: (scale) => {
            scale.ticks = [0, 0.5, 1].map((f) => ({ value: f * entropies[0] }));
          },
          ticks: { color: ink.muted, callback: (value) => (value ? value.toFixed(2) : "0") },
          grid: { color: ink.line, drawTicks: false },
          border: { display: false },
        },
      },
    },
  };
}

function curve({ points, sure, here, error, percent, labels, pick }) {
  const ink = palette();
  const scale = percent ? 100 : 1;
  const at = (shift, of = points) => of.map(({ x, y }) => ({ x: x * 100, y: (y + shift) * scale }));
  const series = [null, points, sure]; // by dataset
  const axis = (text) => ({
    title: { display: true, text, color: ink.muted },
    ticks: {
      color: ink.muted,
      maxTicksLimit: 6,
      maxRotation: 0,
      callback: (value) => (percent || text === labels.x ? `${+value.toFixed(1)} %` : value),
    },
    grid: { color: ink.line, drawTicks: false },
    border: { display: false },
  });
  return {
    type: "line",
    plugins: [names],
    datasets: [
      {
        label: "yours",
        data: here ? [{ x: here.x * 100, y: here.y * scale }] : [],
        pointRadius: 9,
        pointHoverRadius: 9,
        pointBackgroundColor: ink.honey,
        pointBorderColor: ink.honeyDeep,
        pointBorderWidth: 3,
        order: 1,
      },
      {
        label: "along delta",
        data: at(0),
        ...measured(ink, ink.blue),
        order: 2,
      },
      {
        label: "along entropy_threshold",
        data: at(0, sure),
        ...measured(ink, ink.ink),
        order: 2,
      },
      {
        data: error ? at(error) : [],
        borderWidth: 0,
        pointRadius: 0,
        pointHitRadius: 0,
        fill: "+1",
        backgroundColor: ink.band,
        order: 3,
      },
      { data: error ? at(-error) : [], borderWidth: 0, pointRadius: 0, pointHitRadius: 0, order: 3 },
    ],
    options: {
      animation: still.matches ? false : { duration: 250 },
      interaction: { mode: "nearest", intersect: true },
      onClick: (_, elements) => {
        const found = elements.find(({ datasetIndex }) => series[datasetIndex]);
        if (found) pick(series[found.datasetIndex][found.index]);
      },
      onHover: ({ native }, elements) => {
        native.target.classList.toggle(
          "clickable",
          elements.some(({ datasetIndex }) => series[datasetIndex]),
        );
      },
      plugins: {
        names: { texts: points.map(({ delta }) => show(delta)) },
        tooltip: tooltip(ink, {
          title: () => "",
          label: ({ datasetIndex, dataIndex, parsed }) => {
            const name = series[datasetIndex]?.[dataIndex].name ?? "yours";
            const score = percent ? `${parsed.y.toFixed(1)} %` : parsed.y.toFixed(3);
            return `${name}: ${score}, ${parsed.x.toFixed(1)} % saved`;
          },
        }),
      },
      scales: { x: { type: "linear", min: 0, max: 100, ...axis(labels.x) }, y: { grace: "8%", ...axis(labels.y) } },
    },
  };
}

/** What datasets of measured points look like. */
const measured = (ink, colour) => ({
  borderColor: colour,
  borderWidth: 2,
  pointRadius: 4,
  pointHoverRadius: 6,
  pointBackgroundColor: ink.surface,
  pointBorderColor: colour,
  pointBorderWidth: 2,
});

/** The deltas written beside their points, as far as there is room. */
const names = {
  id: "names",
  afterDatasetsDraw(chart) {
    const { ctx, chartArea } = chart;
    const taken = [];
    ctx.save();
    ctx.font = `500 12px ${Chart.defaults.font.family}`;
    ctx.fillStyle = palette().muted;
    ctx.textAlign = "center";
    const points = chart.getDatasetMeta(1).data;
    const order = [0, points.length - 1, ...points.keys()]; // the ends first
    for (const i of order) {
      const name = chart.options.plugins.names.texts[i];
      const half = ctx.measureText(name).width / 2;
      const x = Math.min(Math.max(points[i].x, chartArea.left + half + 4), chartArea.right - half);
      if (taken.some(([from, to]) => x + half + 10 > from && x - half - 10 < to)) continue;
      taken.push([x - half, x + half]);
      ctx.fillText(name, x, points[i].y + 22);
    }
    ctx.restore();
  },
};

function histogram({ counts }) {
  const ink = palette();
  return {
    type: "bar",
    labels: counts.map((_, i) => String(i + 1)),
    datasets: [{ label: "lines", data: counts, backgroundColor: ink.honey, borderRadius: 4, maxBarThickness: 56 }],
    options: {
      animation: still.matches ? false : { duration: 250 },
      plugins: { tooltip: tooltip(ink, { title: ([item]) => `after block ${item.label}` }) },
      scales: {
        x: {
          title: { display: true, text: "left after block", color: ink.muted },
          ticks: { color: ink.muted },
          grid: { display: false },
          border: { color: ink.line },
        },
        y: {
          beginAtZero: true,
          ticks: { color: ink.muted, precision: 0 },
          grid: { color: ink.line, drawTicks: false },
          border: { display: false },
        },
      },
    },
  };
}

function tooltip(ink, callbacks) {
  return {
    callbacks,
    filter: ({ datasetIndex, chart }) => chart.canvas.id !== "curve" || datasetIndex < 3,
    displayColors: false,
    backgroundColor: ink.ink,
    titleColor: ink.paper,
    bodyColor: ink.paper,
    cornerRadius: 6,
    padding: 10,
  };
}

/** The style sheet's colours as they are now. A canvas can't use them by name. */
function palette() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`);
  return {
    ink: colour("ink"),
    paper: colour("paper"),
    surface: colour("surface"),
    muted: colour("muted"),
    line: colour("line"),
    honey: colour("honey"),
    honeyDeep: colour("honey-deep"),
    blue: colour("blue"),
    band: colour("band"),
  };
}

const again = () => {
  for (const [id, [configure, data]] of last) draw(id, configure, data);
};
addEventListener("themechange", again);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
document.fonts.ready.then(again);
