// What the conformance suite has a page do: make a call, and tell what came of it. See conformance/chromium.py.

import { fromBinary, toBinary, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { base64Decode, base64Encode } from "@bufbuild/protobuf/wire";
import { Code, ConnectError, type CallOptions } from "@connectrpc/connect";
import { BadRequestSchema, QuotaFailureSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb";
import { RouterService } from "../src/gen/pointsman/v1/router_service_pb";
import { AttemptsExhaustedSchema, NoEligibleEndpointSchema } from "../src/gen/pointsman/v1/routing_pb";
import { connect, failureOf, type PointsmanClient } from "../src/pointsman";

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

const encoded = <Schema extends DescMessage>(schema: Schema, message: MessageShape<Schema>): string =>
  base64Encode(toBinary(schema, message));

/** The responses of a call, encoded. */
async function* call(client: PointsmanClient, job: Job, options: CallOptions): AsyncGenerator<string> {
  const requests = job.requests.map((request) => base64Decode(request));
  const [bytes = new Uint8Array()] = requests;
  const { route, complete, reportOutcome, reportOutcomes, listEndpoints, watchEndpoints } = RouterService.method;
  switch (job.method) {
    case route.name:
      yield encoded(route.output, await client.route(fromBinary(route.input, bytes), options));
      break;
    case complete.name:
      for await (const response of client.complete(fromBinary(complete.input, bytes), options)) {
        yield encoded(complete.output, response);
      }
      break;
    case reportOutcome.name:
      await client.reportOutcome(fromBinary(reportOutcome.input, bytes), options);
      break;
    case reportOutcomes.name: {
      const stream = (async function* () {
        for (const each of requests) yield fromBinary(reportOutcomes.input, each);
      })();
      yield encoded(reportOutcomes.output, await client.reportOutcomes(stream, options));
      break;
    }
    case listEndpoints.name:
      yield encoded(listEndpoints.output, await client.listEndpoints(fromBinary(listEndpoints.input, bytes), options));
      break;
    case watchEndpoints.name:
      for await (const response of client.watchEndpoints(fromBinary(watchEndpoints.input, bytes), options)) {
        yield encoded(watchEndpoints.output, response);
      }
      break;
    default:
      throw new Error(`there is no method ${job.method} here`);
  }
}

/** Makes the call, and leaves it after `cancel_after` responses. */
async function perform(job: Job): Promise<object> {
  const leaving = new AbortController();
  const options: CallOptions = { headers: job.metadata, signal: leaving.signal };
  if (job.timeout_s !== null) options.timeoutMs = job.timeout_s * 1e3;
  const scheme = job.authority_file === null ? "http" : "https";
  const client = connect(`${scheme}://${job.target}`, job.api_key ?? "");
  const responses: string[] = [];
  try {
    for await (const response of call(client, job, options)) {
      responses.push(response);
      if (responses.length === job.cancel_after) leaving.abort();
    }
    return { status: "OK", responses };
  } catch (error) {
    return { ...failed(error), responses };
  }
}

function failed(error: unknown): object {
  const status = ConnectError.from(error);
  const [noEligibleEndpoint] = status.findDetails(NoEligibleEndpointSchema);
  const [attemptsExhausted] = status.findDetails(AttemptsExhaustedSchema);
  const delay = status.findDetails(RetryInfoSchema)[0]?.retryDelay;
  return {
    ...failureOf(error),
    status: nameOf(status.code),
    violations: [
      ...status
        .findDetails(BadRequestSchema)
        .flatMap(({ fieldViolations }) => fieldViolations)
        .map(({ field, description }) => ({ subject: field, description })),
      ...status
        .findDetails(QuotaFailureSchema)
        .flatMap(({ violations }) => violations)
        .map(({ subject, description }) => ({ subject, description })),
    ],
    no_eligible_endpoint: noEligibleEndpoint && encoded(NoEligibleEndpointSchema, noEligibleEndpoint),
    attempts_exhausted: attemptsExhausted && encoded(AttemptsExhaustedSchema, attemptsExhausted),
    retry_after_s: delay ? Number(delay.seconds) + delay.nanos / 1e9 : null,
  };
}

/** As gRPC spells it: DEADLINE_EXCEEDED for DeadlineExceeded. */
function nameOf(code: Code): string {
  if (code === Code.Canceled) return "CANCELLED";
  return Code[code].replace(/(?<=[a-z])(?=[A-Z])/g, "_").toUpperCase();
}

Object.assign(globalThis, { perform });
