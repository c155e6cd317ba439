// Fields of a form from a JSON schema of the API's description: what they are, how they are sent, and what is new.
import { get } from "../api.js";

/** The schemas of the API's description, by name. */
let schemas = null;
export const loadSchemas = () =>
  (schemas ??= get("/openapi.json").then(
    (found) => found.components.schemas,
    (error) => {
      schemas = null;
      throw error;
    },
  ));

/** `{name, kind, options, initial, isOptional, hint, limits}` of each property but those in `without`. */
export function fieldsOf(schema, without = []) {
  return Object.entries(schema.properties)
    .filter(([name]) => !without.includes(name))
    .map(([name, property]) => fieldOf(name, property));
}

function fieldOf(name, property) {
  const choices = (property.anyOf ?? [property]).filter((one) => one.type !== "null");
  const isOptional = choices.length < (property.anyOf?.length ?? 1);
  const [first] = choices;
  const list = choices.find((one) => one.type === "array");
  const field = { name, isOptional, initial: property.default ?? null, hint: property.description ?? null, options: null };
  if (list?.items?.enum) return { ...field, kind: "several", options: list.items.enum };
  if (list) return { ...field, kind: "list" };
  if (first.enum) return { ...field, kind: "choice", options: first.enum };
  if (first.type === "boolean") return { ...field, kind: isOptional ? "perhaps" : "boolean" };
  if (first.type === "integer" || first.type === "number") return { ...field, kind: first.type, limits: limitsOf(first) };
  return { ...field, kind: "text" };
}

const limitsOf = (schema) => ({ min: schema.minimum ?? schema.exclusiveMinimum, max: schema.maximum ?? schema.exclusiveMaximum });

/** `gradient_accumulation_steps` as people read it. */
export const labelOf = (name) => {
  const words = name.replaceAll("_", " ").replace("lora", "LoRA").replace("rslora", "rsLoRA").replace("dora", "DoRA");
  return words[0].toUpperCase() + words.slice(1);
};

/** What is typed, as the API takes it; undefined: leave it to the API. What is no number goes as it is: the API says so. */
export function valueOf(field, typed) {
  if (typed === undefined || typed === "" || typed === null) return undefined;
  if (field.kind === "integer" || field.kind === "number") return Number.isNaN(Number(typed)) ? typed : Number(typed);
  if (field.kind === "perhaps") return typed === "yes";
  if (field.kind === "list") return typed.includes(",") ? typed.split(",").map((one) => one.trim()).filter(Boolean) : typed;
  if (field.kind === "several") return typed.length ? typed : undefined;
  return typed;
}
