// Small helpers to make elements and to write numbers.

export const $ = (id) => document.getElementById(id);

/** An element: properties as they are called in the DOM, `aria-…` and other attributes with a dash, then children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const MINUS = "\u2212";
const signed = (text) => text.replace(/^-/, MINUS);

// \u202f is a narrow space that does not break
export const percent = (share, digits = 1) => `${signed((share * 100).toFixed(digits))}\u202f%`;
export const flops = (count) =>
  count
    .toLocaleString("en", { notation: "compact", minimumSignificantDigits: 3, maximumSignificantDigits: 3 })
    .replace(/[A-Z]/, "\u202f$&");
export const milliseconds = (ms) => `${signed(ms.toLocaleString("en", { maximumSignificantDigits: 3 }))}\u202fms`;
export const count = (number) => number.toLocaleString("en");
export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;
/** What an answer says: its label, or those that apply where there may be several. */
export const says = ({ label, labels }) => (labels ? labels.join(", ") || "no label" : label);
/** An entropy that may be 0.69 or 0.0000003. */
export const nats = (entropy) => (entropy >= 0.001 || entropy === 0 ? entropy.toFixed(3) : entropy.toExponential(1));

/** A table from its header and rows; a first cell is its row's header. */
export function fillTable(table, header, rows) {
  table.replaceChildren(
    make("thead", {}, make("tr", {}, ...header.map((name) => make("th", { scope: "col", textContent: name })))),
    make(
      "tbody",
      {},
      ...rows.map(([first, ...rest]) =>
        make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((cell) => make("td", {}, cell))),
      ),
    ),
  );
}
