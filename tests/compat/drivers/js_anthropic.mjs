// Anthropic's SDK for JavaScript.
import Anthropic from "@anthropic-ai/sdk";
import {
  PARAMETERS, PROMPT, QUESTION, TOOL_DESCRIPTION, collect, serve, weather,
} from "./drive.mjs";

const LIMIT = { max_tokens: 500 };
const TOOLS = [{ name: "weather", description: TOOL_DESCRIPTION, input_schema: PARAMETERS }];

function messages(baseURL, apiKey, model) {
  const api = new Anthropic({ baseURL, apiKey }).messages;
  const question = { model, ...LIMIT, messages: [{ role: "user", content: PROMPT }] };
  const stream = async () => collect(await api.create({ ...question, stream: true }));
  const conversation = async (ask) => {
    const said = [{ role: "user", content: QUESTION }];
    const body = { model, ...LIMIT, messages: said, tools: TOOLS };
    const { content } = await ask(body);
    const call = content.find((block) => block.type === "tool_use");
    const result = { type: "tool_result", tool_use_id: call.id, content: weather(call.input) };
    said.push({ role: "assistant", content }, { role: "user", content: [result] });
    return (await ask(body)).content[0].text;
  };
  return {
    ask: async () => (await api.create(question)).content[0].text,
    stream,
    text_streamed: async () =>
      (await stream()).map((event) => event.delta?.text ?? "").join(""),
    tool: () => conversation((body) => api.create(body)),
    tool_streamed: () => conversation((body) => api.stream(body).finalMessage()),
  };
}

await serve({ messages });
