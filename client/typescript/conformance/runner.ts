// The runner of the conformance suite: takes calls as lines of JSON, and answers each with what the client saw. See
// conformance/runner.py.
import { createInterface } from "node:readline";
import {
  AttemptsExhausted,
  type CallSettings,
  type ClientOptions,
  CompleteRequest,
  CompleteResponse,
  ListEndpointsRequest,
  ListEndpointsResponse,
  NoEligibleEndpoint,
  PointsmanClient,
  PointsmanError,
  ReportOutcomeRequest,
  ReportOutcomesRequest,
  ReportOutcomesResponse,
  RouteRequest,
  RouteResponse,
  status,
  WatchEndpointsRequest,
  WatchEndpointsResponse,
} from "@pointsman/client";

interface Job {
  target: string;
  authority_file: string | null;
  api_key: string | null;
  metadata: Record<string, string>;
  timeout_s: number | null;
  cancel_after: number | null;
  method: string;
  requests: string[];
}

interface Encoder<M> {
  encode(message: M): { finish(): Uint8Array };
}

const encoded = <M>(encoder: Encoder<M>, message: M): string =>
  Buffer.from(encoder.encode(message).finish()).toString("base64");

const clients = new Map<string, PointsmanClient>();

function clientOf(job: Job): PointsmanClient {
  const key = JSON.stringify([job.target, job.authority_file, job.api_key]);
  let client = clients.get(key);
  if (client === undefined) {
    const options: ClientOptions = {};
    if (job.authority_file !== null) {
      options.tls = { rootsFile: job.authority_file };
    }
    if (job.api_key !== null) {
      options.apiKey = job.api_key;
    }
    client = new PointsmanClient(job.target, options);
    clients.set(key, client);
  }
  return client;
}

/** The responses of a call, encoded. */
async function* call(client: PointsmanClient, job: Job): AsyncGenerator<string> {
  const settings: CallSettings = { metadata: job.metadata };
  if (job.timeout_s !== null) {
    settings.timeoutMs = job.timeout_s * 1e3;
  }
  const requests = job.requests.map((request) => Buffer.from(request, "base64"));
  const [request = Buffer.alloc(0)] = requests;
  switch (job.method) {
    case "Route":
      yield encoded(RouteResponse, await client.route(RouteRequest.decode(request), settings));
      break;
    case "Complete":
      for await (const response of client.complete(CompleteRequest.decode(request), settings)) {
        yield encoded(CompleteResponse, response);
      }
      break;
    case "ReportOutcome":
      await client.reportOutcome(ReportOutcomeRequest.decode(request), settings);
      break;
    case "ReportOutcomes": {
      const outcomes = requests.map((each) => ReportOutcomesRequest.decode(each));
      yield encoded(ReportOutcomesResponse, await client.reportOutcomes(outcomes, settings));
      break;
    }
    case "ListEndpoints":
      yield encoded(ListEndpointsResponse, await client.listEndpoints(ListEndpointsRequest.decode(request), settings));
      break;
    case "WatchEndpoints":
      for await (const response of client.watchEndpoints(WatchEndpointsRequest.decode(request), settings)) {
        yield encoded(WatchEndpointsResponse, response);
      }
      break;
    default:
      throw new Error(`there is no method ${job.method}`);
  }
}

/** Makes the call, and leaves it after `cancel_after` responses. */
async function perform(job: Job): Promise<object> {
  const responses: string[] = [];
  try {
    for await (const response of call(clientOf(job), job)) {
      responses.push(response);
      if (responses.length === job.cancel_after) {
        return { status: "CANCELLED", responses };
      }
    }
    return { status: "OK", responses };
  } catch (error) {
    if (!(error instanceof PointsmanError)) {
      throw error;
    }
    return { ...failure(error), responses };
  }
}

function failure(error: PointsmanError): object {
  return {
    status: status[error.code],
    message: error.message,
    reason: error.reason,
    metadata: error.metadata,
    violations: [
      ...error.fieldViolations.map(({ field, description }) => ({ subject: field, description })),
      ...error.quotaViolations.map(({ subject, description }) => ({ subject, description })),
    ],
    no_eligible_endpoint: error.noEligibleEndpoint && encoded(NoEligibleEndpoint, error.noEligibleEndpoint),
    attempts_exhausted: error.attemptsExhausted && encoded(AttemptsExhausted, error.attemptsExhausted),
    retry_after_s: error.retryAfterMs === undefined ? null : error.retryAfterMs / 1e3,
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  const result = await perform(JSON.parse(line) as Job);
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
for (const client of clients.values()) {
  client.close();
}
