// Asks where a prompt should go.
import { PointsmanClient, PointsmanError, user } from "@pointsman/client";

const client = new PointsmanClient(process.argv[2] ?? "127.0.0.1:50061");
try {
  const { decision } = await client.route({
    conversation: { messages: [user("What is 17 * 23?")] },
    routing: { router: "router@q:1|rc:5|c<2" },
  });
  for (const { rank, endpoint, quality } of decision?.candidates ?? []) {
    if (rank > 0) {
      console.log(`${rank}. ${endpoint}, quality ${quality?.mean.toFixed(2)}`);
    }
  }
} catch (error) {
  if (error instanceof PointsmanError) {
    for (const { endpoint, rejections } of error.noEligibleEndpoint?.candidates ?? []) {
      console.log(endpoint, rejections);
    }
  }
  throw error;
} finally {
  client.close();
}
