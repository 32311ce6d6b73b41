// What OpenAI's own Node client makes of the door: each scenario prints what it saw, as one line of JSON.
//
//     node scenarios.mjs BASE_URL SCENARIO

import OpenAI from "openai";

const [baseURL, scenario] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const messages = [{ role: "user", content: "What is the weather in Oslo?" }];
const tools = [
  {
    type: "function",
    function: { name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } },
  },
];

async function chat() {
  const { data, response } = await client.chat.completions
    .create({ model: "a@first", messages, seed: 7, stop: ["END"] })
    .withResponse();
  return {
    text: data.choices[0].message.content,
    finish: data.choices[0].finish_reason,
    model: data.model,
    tokens: data.usage.total_tokens,
    endpoint: response.headers.get("x-pointsman-endpoint"),
    sameId: data.id === `chatcmpl-${response.headers.get("x-pointsman-decision-id")}`,
  };
}

async function stream() {
  const chunks = [];
  const events = await client.chat.completions.create({
    model: "a@first",
    messages,
    stream: true,
    stream_options: { include_usage: true },
    pointsman: { include_decision: true },
  });
  for await (const chunk of events) chunks.push(chunk);
  return {
    texts: chunks.map((chunk) => chunk.choices[0]?.delta?.content).filter(Boolean),
    finish: chunks.at(-2).choices[0].finish_reason,
    tokens: chunks.at(-1).usage.total_tokens,
    decided: chunks[0].pointsman.decision.endpoint,
    done: chunks.at(-2).pointsman.done.endpoint,
  };
}

async function toolLoop() {
  const first = await client.chat.completions.create({ model: "a@first", messages, tools, tool_choice: "auto" });
  const message = first.choices[0].message;
  const results = message.tool_calls.map((call) => ({ role: "tool", tool_call_id: call.id, content: "rain" }));
  const second = await client.chat.completions.create({
    model: "a@second",
    messages: [...messages, message, ...results],
    tools,
  });
  return {
    calls: message.tool_calls.map((call) => [call.id, call.function.name, JSON.parse(call.function.arguments).city]),
    finish: first.choices[0].finish_reason,
    text: second.choices[0].message.content,
  };
}

async function toolStream() {
  const runner = client.chat.completions.stream({ model: "a@first", messages, tools });
  const message = await runner.finalMessage();
  return { calls: message.tool_calls.map((call) => [call.id, JSON.parse(call.function.arguments).city]) };
}

async function failures() {
  const seen = {};
  for (const [name, asked] of Object.entries({
    unsupported: { model: "a@first", n: 2 },
    unknown: { model: "no-such-model" },
    impossible: { model: "router@c<0.001" },
    limited: { model: "a@first" },
    down: { model: "a@second" },
  })) {
    try {
      await client.chat.completions.create({ messages, ...asked });
    } catch (error) {
      seen[name] = [error.constructor.name, error.status, error.code, error.param ?? null];
    }
  }
  return seen;
}

async function breakOff() {
  const texts = [];
  try {
    for await (const chunk of await client.chat.completions.create({ model: "a@first", messages, stream: true })) {
      texts.push(chunk.choices[0].delta.content);
    }
  } catch (error) {
    return { texts, kind: error.constructor.name, code: error.code };
  }
  return { texts };
}

async function leave() {
  const events = await client.chat.completions.create({ model: "a@first", messages, stream: true });
  for await (const chunk of events) {
    events.controller.abort();
    return { text: chunk.choices[0].delta.content };
  }
}

const scenarios = { chat, stream, toolLoop, toolStream, failures, breakOff, leave };
console.log(JSON.stringify(await scenarios[scenario]()));
