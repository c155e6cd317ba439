// What an evaluation measures, as people read it, and what a comparison says in words.
import { count, duration, figure, percent, plural, short } from "./format.js";
import { labelOf } from "./schema.js";

const share = { format: (value) => percent(value, 1), apart: (value) => `${(value * 100).toFixed(1)} points` };
const milliseconds = { format: (value) => duration(value / 1000) };
const ratio = { format: figure };
const points = { format: (value) => value.toFixed(1) };

/** `name`, what it counts, how a value and a difference are written, and whether it is one of the first to look at. */
export const METRICS = {
  loss: { name: "Loss", hint: "nats a token of the wanted answer; lower is better", isMain: true, ...ratio },
  token_accuracy: { name: "Token accuracy", hint: "the wanted answer's tokens that were the likeliest", isMain: true, ...share },
  exact_match: { name: "Exact match", hint: "answers that are the wanted one, but for articles and punctuation", isMain: true, ...share },
  f1: { name: "Token F1", hint: "words in common with the wanted answer, 0 to 1", isMain: true, ...ratio },
  rouge_l: { name: "ROUGE-L", hint: "the longest run in common with the wanted answer, 0 to 1", isMain: true, ...ratio },
  chrf: { name: "chrF", hint: "characters in common, 0 to 100", isMain: true, ...points },
  bleu: { name: "BLEU", hint: "of sentences, 0 to 100", isMain: true, ...points },
  judged: { name: "Judged better", hint: "by the judge, than the first column; a tie counts half", isMain: true, ...share },
  repetition: { name: "Repetition", hint: "words that repeat what was said; lower is better", ...share },
  truncated: { name: "Cut off", hint: "answers that were cut at their most tokens; lower is better", ...share },
  length: { name: "Length", hint: "tokens of an answer", ...points },
  latency_ms: { name: "Latency", hint: "from the question to the whole answer, without waiting; lower is better", ...milliseconds },
  tokens_per_second: { name: "Tokens per second", hint: "within an answer", format: short },
  prompt_tokens: { name: "Prompt tokens", hint: "what is read for an answer", format: count },
};

export const CORPUS = { perplexity: "Perplexity", corpus_bleu: "BLEU over all answers", corpus_chrf: "chrF over all answers" };
export const SOURCES = { held_out: "Held-out examples", questions: "Questions", general: "General knowledge" };
export const VERDICTS = { better: "good", worse: "bad", "no difference shown": "calm", "too few examples": "warn" };

/** Of a metric that is not known here, too. */
export const metricOf = (name) => METRICS[name] ?? { name: labelOf(name), hint: null, format: short };

const apartOf = ({ apart, format }) => apart ?? format;

/** Whether this is a number: JSON has no infinities, and where nobody can say there is null. */
export const isKnown = (value) => typeof value === "number" && Number.isFinite(value);

/** `0.380 to 0.470`, or null where nobody can say. */
export function range({ low, high }, format) {
  return isKnown(low) && isKnown(high) ? `${format(low)} to ${format(high)}` : null;
}

/** `0.310 lower (0.250 to 0.370 lower)`, `0.010 higher (0.030 lower to 0.050 higher)`. */
export function difference(metric, { value, low, high }) {
  const apart = apartOf(metricOf(metric));
  const side = (one) => (one < 0 ? "lower" : "higher");
  const words = (one) => `${apart(Math.abs(one))} ${side(one)}`;
  const around = () => {
    if (!isKnown(low) || !isKnown(high)) return "";
    if (side(low) !== side(high)) return ` (${words(low)} to ${words(high)})`;
    const [near, far] = [low, high].map(Math.abs).sort((a, b) => a - b);
    return ` (${apart(near)} to ${apart(far)} ${side(low)})`;
  };
  return `${words(value)}${around()}`;
}

/** One pair in a sentence, without its verdict. */
export function pairWords({ metric, difference: interval }) {
  return `${metricOf(metric).name} ${difference(metric, interval)}, over ${plural(interval.num_examples, "example")}`;
}
