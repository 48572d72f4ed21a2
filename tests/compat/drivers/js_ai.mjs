// The Vercel AI SDK with four of its providers.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import {
  PARAMETERS, PROMPT, QUESTION, TOOL_DESCRIPTION, collect, serve, weather,
} from "./drive.mjs";

const tools = {
  weather: tool({
    description: TOOL_DESCRIPTION,
    inputSchema: jsonSchema(PARAMETERS),
    execute: async (input) => weather(input),
  }),
};
const steps = { prompt: QUESTION, tools, stopWhen: stepCountIs(3) };

// A stream tells of an error by a part of it; the caller gets it thrown.
async function parts(options) {
  const found = await collect(streamText({ ...options, onError: () => {} }).fullStream);
  const failed = found.find((part) => part.type === "error");
  if (failed) throw failed.error;
  return found;
}

const text = (found) =>
  found.map((part) => (part.type === "text-delta" ? part.text : "")).join("");

const using = (model) => ({
  ask: async () => (await generateText({ model, prompt: PROMPT })).text,
  stream: async () =>
    (await parts({ model, prompt: PROMPT })).filter(({ type }) => type.startsWith("text-")),
  text_streamed: async () => text(await parts({ model, prompt: PROMPT })),
  tool: async () => (await generateText({ model, ...steps })).text,
  tool_streamed: async () => text(await parts({ model, ...steps })),
});

await serve({
  openai: (baseURL, apiKey, model) => using(createOpenAI({ baseURL, apiKey })(model)),
  "openai-chat": (baseURL, apiKey, model) => using(createOpenAI({ baseURL, apiKey }).chat(model)),
  "openai-compatible": (baseURL, apiKey, model) =>
    using(createOpenAICompatible({ name: "tollkeeper", baseURL, apiKey })(model)),
  anthropic: (baseURL, apiKey, model) => using(createAnthropic({ baseURL, apiKey })(model)),
  google: (baseURL, apiKey, model) => using(createGoogleGenerativeAI({ baseURL, apiKey })(model)),
  "openai-embeddings": (baseURL, apiKey, model) => ({
    embed: async () =>
      (await embed({ model: createOpenAI({ baseURL, apiKey }).embedding(model), value: PROMPT }))
        .embedding,
  }),
});
