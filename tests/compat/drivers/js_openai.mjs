// The OpenAI SDK for JavaScript.
import OpenAI from "openai";
import {
  PARAMETERS, PROMPT, QUESTION, TOOL_DESCRIPTION, collect, serve, weather,
} from "./drive.mjs";

const TOOL = { name: "weather", description: TOOL_DESCRIPTION, parameters: PARAMETERS };

function chat(baseURL, apiKey, model) {
  const completions = new OpenAI({ baseURL, apiKey }).chat.completions;
  const tools = [{ type: "function", function: TOOL }];
  const messages = [{ role: "user", content: PROMPT }];
  const stream = async () => collect(await completions.create({ model, messages, stream: true }));
  const conversation = async (ask) => {
    const asked = [{ role: "user", content: QUESTION }];
    const { message } = (await ask({ model, messages: asked, tools })).choices[0];
    const [call] = message.tool_calls;
    const content = weather(JSON.parse(call.function.arguments));
    asked.push(message, { role: "tool", tool_call_id: call.id, content });
    return (await ask({ model, messages: asked, tools })).choices[0].message.content;
  };
  return {
    ask: async () =>
      (await completions.create({ model, messages })).choices[0].message.content,
    stream,
    text_streamed: async () =>
      (await stream()).map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""),
    tool: () => conversation((body) => completions.create(body)),
    tool_streamed: () => conversation((body) => completions.stream(body).finalChatCompletion()),
  };
}

function responses(baseURL, apiKey, model) {
  const api = new OpenAI({ baseURL, apiKey }).responses;
  const tools = [{ type: "function", strict: false, ...TOOL }];
  const stream = async () => collect(await api.create({ model, input: PROMPT, stream: true }));
  const conversation = async (ask) => {
    const input = [{ role: "user", content: QUESTION }];
    const { output } = await ask({ model, input, tools });
    const call = output.find((item) => item.type === "function_call");
    const result = weather(JSON.parse(call.arguments));
    input.push(call, { type: "function_call_output", call_id: call.call_id, output: result });
    return (await ask({ model, input, tools })).output_text;
  };
  return {
    ask: async () => (await api.create({ model, input: PROMPT })).output_text,
    stream,
    text_streamed: async () =>
      (await stream()).map((event) => (event.type.endsWith("text.delta") ? event.delta : ""))
        .join(""),
    tool: () => conversation((body) => api.create(body)),
    tool_streamed: () => conversation((body) => api.stream(body).finalResponse()),
  };
}

const embeddings = (baseURL, apiKey, model) => ({
  embed: async () =>
    (await new OpenAI({ baseURL, apiKey }).embeddings.create({
      model, input: PROMPT, encoding_format: "float",
    })).data[0].embedding,
});

await serve({ chat, responses, embeddings });
