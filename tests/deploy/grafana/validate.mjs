// Checks dashboard files against Grafana's types (dashboard.ts), turned into JSON Schema: node validate.mjs FILE...
// Prints what is wrong, and ends with exit code 1 if anything is.
import { readFileSync } from "node:fs";
import Ajv from "ajv";
import { createGenerator } from "ts-json-schema-generator";

const here = (name) => new URL(name, import.meta.url).pathname;
const { properties } = createGenerator({
  path: here("dashboard.ts"),
  tsconfig: here("tsconfig.json"),
  type: "Checked",
  expose: "none", // Grafana has many types named Options and FieldConfig
  topRef: false,
  additionalProperties: false,
}).createSchema("Checked");

const ajv = new Ajv({ allErrors: true, strict: false });
const checks = Object.fromEntries(Object.entries(properties).map(([type, schema]) => [type, ajv.compile(schema)]));
const wrong = [];
function check(type, value, where) {
  if (!(type in checks)) wrong.push(`${where}: type ${type} is not in dashboard.ts`);
  else if (!checks[type](value))
    for (const { instancePath, message, params } of checks[type].errors)
      wrong.push(`${where} ${instancePath}: ${message} ${JSON.stringify(params)}`);
}
for (const file of process.argv.slice(2)) {
  const dashboard = JSON.parse(readFileSync(file, "utf8"));
  check("dashboard", dashboard, file);
  for (const panel of dashboard.panels) check(panel.type, panel, `${file} panel "${panel.title}"`);
}
console.log(wrong.join("\n") || `${process.argv.length - 2} dashboards hold to Grafana's types`);
process.exit(wrong.length ? 1 : 0);
