// delta and its slider: zero in the middle, both signs outwards on a log scale, and "never early" beyond -1.

const DECADES = 5; // 0.00001 to 1
const STEPS = 8; // a decade
const SIDE = DECADES * STEPS + 1;

export const LEFT = -SIDE - 1; // the stop for "never early", which is no delta but min_blocks = num_blocks
export const RIGHT = SIDE;
export const NEVER = "never";

/** The delta at a position of the slider, or NEVER. */
export function deltaAt(position) {
  if (position === LEFT) return NEVER;
  if (position === 0) return 0;
  const size = 10 ** ((Math.abs(position) - 1) / STEPS - DECADES);
  return Math.sign(position) * Number(size.toPrecision(2));
}

/** The position nearest to a delta. */
export function positionOf(delta) {
  if (delta === NEVER) return LEFT;
  if (!delta) return 0;
  const step = Math.round((Math.log10(Math.abs(delta)) + DECADES) * STEPS) + 1;
  return Math.sign(delta) * Math.min(Math.max(step, 1), SIDE);
}

/** The fields of a request for a delta and an entropy threshold, null being the model's default, 0 no threshold. What
 *  was chosen may answer from block 1 on, as the curves were measured, whatever the model's default is. */
export function request(delta, sure, blocks) {
  if (delta === NEVER) return { min_blocks: blocks };
  if (delta === null && sure === null) return {};
  return { ...(delta === null ? {} : { delta }), ...(sure === null ? {} : { entropy_threshold: sure }), min_blocks: 1 };
}

/** What a delta means, in a sentence. */
export function meaning(delta, blocks) {
  if (delta === NEVER) return `Never early: all ${blocks} blocks run, whatever they bring.`;
  if (delta >= 1) return "Every text leaves after block 1.";
  if (delta > 0) return `A text leaves after the first block that lowers the entropy by less than ${percent(delta)}.`;
  if (delta === 0) return "A text leaves after the first block that raises the entropy.";
  return `A text leaves only after a block that raises the entropy by more than ${percent(-delta)}.`;
}

/** What an entropy threshold means, in a sentence. */
export const meaningOfSure = (sure) =>
  sure
    ? `Or at once, where the entropy is below ${percent(sure)} of what it can be: then the answer is sure.`
    : "Off: how sure an answer is doesn\u2019t matter, only what the last block brought.";

export const show = (delta) => (delta === NEVER ? "never early" : minus(String(delta)));

const minus = (text) => text.replace(/^-/, "\u2212");
const percent = (share) => `${Number((share * 100).toPrecision(3))}\u202f%`;
