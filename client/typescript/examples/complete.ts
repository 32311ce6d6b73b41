// Streams an answer.
import { PointsmanClient, user } from "@pointsman/client";

const client = new PointsmanClient(process.argv[2] ?? "127.0.0.1:50061");
// The deadline is the latency budget; leaving the loop, or an AbortSignal, closes the call at the provider.
const events = client.complete(
  { conversation: { messages: [user("Why is the sky blue?")] }, routing: { router: "cheap" } },
  { timeoutMs: 60_000 },
);
for await (const { event } of events) {
  switch (event?.$case) {
    case "decision":
      console.log("->", event.value.endpoint);
      break;
    case "attemptFailed":
      console.log("failed:", event.value.message);
      break;
    case "delta":
      process.stdout.write(event.value.text);
      break;
    case "done":
      console.log(`\n${event.value.endpoint}, $${event.value.costUsd?.toFixed(6)}`);
  }
}
client.close();
