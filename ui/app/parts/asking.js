// One answer as it is written: streamed from the API's chat, timed where it is read.
import { stream } from "../api.js";

/** Options of a request that are not set are left to the service. */
export function bodyOf(model, messages, { temperature, maxTokens, seed }) {
  const set = { temperature, max_tokens: maxTokens, seed };
  const numbers = Object.entries(set).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return {
    model,
    messages,
    stream: true,
    stream_options: { include_usage: true },
    fallback: true,
    ...Object.fromEntries(numbers.map(([name, value]) => [name, Number(value)])),
  };
}

/**
 * Asks, and calls `onChange` with what changed of the answer: `{text}` as it grows, and at the end who gave it, how it
 * ended, and the times in seconds. Throws nothing: what goes wrong is `{state: "failed", error}`, a stop "stopped".
 */
export async function ask(body, { signal, onChange }) {
  const began = performance.now();
  const since = () => (performance.now() - began) / 1000;
  const found = { text: "", id: null, firstToken: null };
  try {
    for await (const { data } of stream("/v1/chat/completions", body, { signal })) {
      if (data === "[DONE]") break;
      if (data.error) throw { detail: data.error.message, code: data.error.code };
      found.id ??= data.id;
      const choice = data.choices[0];
      if (choice?.delta.content) {
        found.firstToken ??= since();
        found.text += choice.delta.content;
        onChange({ text: found.text, id: found.id, firstToken: found.firstToken });
      }
      if (choice?.finish_reason) onChange({ finish: choice.finish_reason, by: { model: data.model, ...data.finetuned } });
      if (data.usage) onChange({ tokens: data.usage.completion_tokens });
    }
    onChange({ state: "done", id: found.id, total: since() });
  } catch (error) {
    if (error.name === "AbortError") onChange({ state: "stopped", total: since() });
    else onChange({ state: "failed", error: { detail: error.detail ?? String(error), code: error.code ?? null } });
  }
}
