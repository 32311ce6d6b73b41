// The page: asks, and shows the decision and each token as it comes.

import type { Decision } from "./gen/pointsman/v1/routing_pb";
import type { Done } from "./gen/pointsman/v1/router_service_pb";
import { connect, failureOf, userSays } from "./pointsman";

const given = new URLSearchParams(location.search);
const form = element("form", HTMLFormElement);
const server = element("server", HTMLInputElement);
const router = element("router", HTMLInputElement);
const prompt = element("prompt", HTMLTextAreaElement);
const stop = element("stop", HTMLButtonElement);

for (const field of [server, router, prompt]) field.value = given.get(field.id) ?? field.value;

form.addEventListener("submit", (event) => {
  event.preventDefault();
  void ask();
});
if (given.has("ask")) void ask();

async function ask(): Promise<void> {
  const leaving = new AbortController();
  stop.onclick = () => leaving.abort();
  for (const id of ["decision", "candidates", "answer", "outcome"]) show(id, "");
  document.body.dataset["state"] = "asking";
  try {
    const events = connect(server.value, given.get("key") ?? "").complete(
      { conversation: userSays(prompt.value), routing: { router: router.value } },
      { signal: leaving.signal, timeoutMs: Number(given.get("timeout_ms") ?? 120_000) },
    );
    for await (const { event } of events) {
      switch (event.case) {
        case "decision":
          showDecision(event.value);
          break;
        case "attemptFailed":
          show("outcome", `attempt ${event.value.attemptNumber} at ${event.value.endpoint}: ${event.value.message}`);
          break;
        case "delta":
          element("answer", HTMLElement).append(event.value.text);
          document.body.dataset["state"] = "streaming";
          break;
        case "done":
          showDone(event.value);
          break;
      }
    }
    document.body.dataset["state"] = "done";
  } catch (error) {
    const { reason, message } = failureOf(error);
    show("outcome", `${reason} ${message}`.trim());
    document.body.dataset["state"] = leaving.signal.aborted ? "left" : "failed";
  }
}

function showDecision(decision: Decision): void {
  show("decision", `${decision.endpoint}, by ${decision.router} ${decision.routerVersion}`);
  const rows = decision.candidates
    .filter((candidate) => candidate.rank)
    .slice(0, 5)
    .map((candidate) => {
      const row = document.createElement("tr");
      const quality = candidate.quality?.mean.toFixed(2) ?? "?";
      const cost = candidate.costUsd === undefined ? "?" : `$${candidate.costUsd.toFixed(6)}`;
      for (const text of [String(candidate.rank), candidate.endpoint, quality, cost]) {
        row.insertCell().append(text);
      }
      return row;
    });
  element("candidates", HTMLElement).replaceChildren(...rows);
}

function showDone(done: Done): void {
  const first = done.ttft ? `${Math.round(Number(done.ttft.seconds) * 1e3 + done.ttft.nanos / 1e6)} ms` : "none";
  show("outcome", `${done.endpoint}: first token after ${first}, $${done.costUsd?.toFixed(6) ?? "?"}`);
}

function show(id: string, text: string): void {
  element(id, HTMLElement).textContent = text;
}

function element<Kind extends HTMLElement>(id: string, kind: new () => Kind): Kind {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page has no #${id}`);
  return found;
}
