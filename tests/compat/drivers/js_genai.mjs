// Google's GenAI SDK for JavaScript.
import { GoogleGenAI } from "@google/genai";
import {
  PARAMETERS, PROMPT, QUESTION, TOOL_DESCRIPTION, collect, serve, weather,
} from "./drive.mjs";

const DECLARED = { name: "weather", description: TOOL_DESCRIPTION };
const CONFIG = {
  tools: [{ functionDeclarations: [{ ...DECLARED, parametersJsonSchema: PARAMETERS }] }],
};

function generate(baseUrl, apiKey, model) {
  const { models } = new GoogleGenAI({ apiKey, httpOptions: { baseUrl } });
  const stream = async () =>
    collect(await models.generateContentStream({ model, contents: PROMPT }));
  const conversation = async (ask) => {
    const contents = [{ role: "user", parts: [{ text: QUESTION }] }];
    const asked = await ask({ model, contents, config: CONFIG });
    const [{ name, args }] = asked.functionCalls;
    const response = { output: weather(args) };
    contents.push(asked.candidates[0].content, {
      role: "user",
      parts: [{ functionResponse: { name, response } }],
    });
    return (await ask({ model, contents, config: CONFIG })).text;
  };
  const streamed = async (body) => {
    const chunks = await collect(await models.generateContentStream(body));
    return {
      functionCalls: chunks.flatMap((chunk) => chunk.functionCalls ?? []),
      candidates: chunks[0].candidates,
      text: chunks.map((chunk) => chunk.text ?? "").join(""),
    };
  };
  return {
    ask: async () => (await models.generateContent({ model, contents: PROMPT })).text,
    stream: async () =>
      (await stream()).map(({ sdkHttpResponse: _, ...chunk }) => chunk),
    text_streamed: async () => (await stream()).map((chunk) => chunk.text).join(""),
    tool: () => conversation((body) => models.generateContent(body)),
    tool_streamed: () => conversation(streamed),
  };
}

const embeddings = (baseUrl, apiKey, model) => ({
  embed: async () => {
    const { models } = new GoogleGenAI({ apiKey, httpOptions: { baseUrl } });
    return (await models.embedContent({ model, contents: PROMPT })).embeddings[0].values;
  },
});

await serve({ generate, embeddings });
