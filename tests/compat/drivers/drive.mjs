// A program that makes calls with one package: drive.py, for Node.
import { createInterface } from "node:readline";

export const PROMPT = "Where does the rain stay?";
export const QUESTION = "What is the weather in Spain?";
export const TOOL_DESCRIPTION = "The weather in a place.";
export const PARAMETERS = {
  type: "object",
  properties: { place: { type: "string" } },
  required: ["place"],
};

export function weather({ place }) {
  if (place !== "Spain") throw new Error(`asked for ${JSON.stringify(place)}`);
  return "rain-in-spain";
}

export async function collect(events) {
  const found = [];
  for await (const event of events) found.push(event);
  return found;
}

function classes(error) {
  const names = [];
  for (let kind = error; kind && kind.constructor !== Object; kind = Object.getPrototypeOf(kind)) {
    if (!names.includes(kind.constructor.name)) names.push(kind.constructor.name);
  }
  if (error.name && !names.includes(error.name)) names.unshift(error.name);
  return names;
}

function told(error) {
  return {
    classes: classes(error),
    status: error.status ?? error.statusCode ?? error.lastError?.statusCode ?? null,
    text: String(error.message ?? error),
  };
}

export async function serve(clients) {
  const answer = process.stdout.write.bind(process.stdout);
  console.log = console.info = console.warn = console.error;
  for await (const line of createInterface({ input: process.stdin })) {
    const { client, work, base, key, model } = JSON.parse(line);
    let said;
    try {
      said = { result: await clients[client](base, key, model)[work]() };
    } catch (error) {
      said = { error: told(error) };
    }
    answer(JSON.stringify(said) + "\n");
  }
}
