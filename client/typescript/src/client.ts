import { readFileSync } from "node:fs";
import {
  type CallOptions,
  type ChannelOptions,
  type ClientReadableStream,
  type ClientUnaryCall,
  credentials,
  Metadata,
  type ServiceError,
} from "@grpc/grpc-js";
import { errorOf } from "./errors.js";
import {
  CompleteRequest,
  type CompleteResponse,
  ListEndpointsRequest,
  type ListEndpointsResponse,
  ListRoutersRequest,
  type ListRoutersResponse,
  ReportOutcomeRequest,
  ReportOutcomesRequest,
  type ReportOutcomesResponse,
  RouteRequest,
  type RouteResponse,
  RouterServiceClient,
  WatchEndpointsRequest,
  type WatchEndpointsResponse,
} from "./generated/pointsman/v1/router_service.js";
import { serviceConfig } from "./generated/service_config.js";

/** Where `pointsman serve` listens unless it is told otherwise. */
export const DEFAULT_TARGET = "127.0.0.1:50061";

/** A decision takes milliseconds, so this only ends a call that hangs. */
const DEFAULT_TIMEOUT_MS = 10_000;
/** As long as reasoning models take for their longest answers. */
const COMPLETE_TIMEOUT_MS = 600_000;

const CHANNEL_OPTIONS: ChannelOptions = {
  "grpc.service_config": JSON.stringify(serviceConfig),
  // What is too large the server says, with its limit, which can be set as high as this.
  "grpc.max_send_message_length": 256 * 1024 * 1024,
  // At most a page of 1,000 endpoints, or a decision over 4,096.
  "grpc.max_receive_message_length": 16 * 1024 * 1024,
  // A connection that died without a word is noticed within 40 s.
  "grpc.keepalive_time_ms": 30_000,
  "grpc.keepalive_timeout_ms": 10_000,
};

/** How a client connects. */
export interface ClientOptions {
  /** Sent with every call. Absent: none is. */
  apiKey?: string;
  /** Secures the connection. `true` trusts the system's roots, a path those in that PEM file. Absent: it is not secured. */
  tls?: true | { rootsFile: string };
}

/** What a call takes beside its request. */
export interface CallSettings {
  /** The deadline, from now. Absent: 10 s, 600 s of `complete`, and none of `watchEndpoints`. */
  timeoutMs?: number;
  /** Cancels the call, and with it the call at the provider. */
  signal?: AbortSignal;
  /** Headers to send along, such as `traceparent`. */
  metadata?: Record<string, string>;
}

/** A message of which only what matters is set; the rest has its default. */
type Partly<M extends { fromPartial: (object: never) => unknown }> = Parameters<M["fromPartial"]>[0];

type Unary<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: CallOptions,
  callback: (error: ServiceError | null, response: Response) => void,
) => ClientUnaryCall;

/**
 * Talks to a Pointsman server. One client serves any number of concurrent calls. A call that fails throws a
 * `PointsmanError`; `route` and the lists are tried again while the server is unavailable.
 */
export class PointsmanClient {
  /** The generated client, for what is not here. */
  readonly stub: RouterServiceClient;
  readonly #apiKey: string | undefined;

  constructor(target: string = DEFAULT_TARGET, options: ClientOptions = {}) {
    const { tls } = options;
    const channelCredentials =
      tls === undefined
        ? credentials.createInsecure()
        : credentials.createSsl(tls === true ? null : readFileSync(tls.rootsFile));
    this.stub = new RouterServiceClient(target, channelCredentials, CHANNEL_OPTIONS);
    this.#apiKey = options.apiKey;
  }

  /** Ends the connection. */
  close(): void {
    this.stub.close();
  }

  /** Where the prompt should go, and why; the call itself is left to the caller. */
  route(request: Partly<typeof RouteRequest>, settings: CallSettings = {}): Promise<RouteResponse> {
    return this.#unary(this.stub.route, RouteRequest.fromPartial(request), settings);
  }

  /** The events of an answer as they come: the decision first, `done` last. Leaving the loop cancels the call. */
  complete(request: Partly<typeof CompleteRequest>, settings: CallSettings = {}): AsyncGenerator<CompleteResponse> {
    const [metadata, options] = this.#call(settings, COMPLETE_TIMEOUT_MS);
    return drained(this.stub.complete(CompleteRequest.fromPartial(request), metadata, options), settings.signal);
  }

  /** Tells what became of a decision. */
  async reportOutcome(request: Partly<typeof ReportOutcomeRequest>, settings: CallSettings = {}): Promise<void> {
    await this.#unary(this.stub.reportOutcome, ReportOutcomeRequest.fromPartial(request), settings);
  }

  /** Tells many outcomes over one stream; those that can't be taken are listed, not thrown. */
  reportOutcomes(
    requests: Iterable<Partly<typeof ReportOutcomesRequest>>,
    settings: CallSettings = {},
  ): Promise<ReportOutcomesResponse> {
    const [metadata, options] = this.#call(settings);
    return settled(settings.signal, (callback) => {
      const stream = this.stub.reportOutcomes(metadata, options, callback);
      for (const request of requests) {
        stream.write(ReportOutcomesRequest.fromPartial(request));
      }
      stream.end();
      return stream;
    });
  }

  /** A page of the endpoints, with what is known of each. */
  listEndpoints(
    request: Partly<typeof ListEndpointsRequest> = {},
    settings: CallSettings = {},
  ): Promise<ListEndpointsResponse> {
    return this.#unary(this.stub.listEndpoints, ListEndpointsRequest.fromPartial(request), settings);
  }

  /** A page of the named routers. */
  listRouters(
    request: Partly<typeof ListRoutersRequest> = {},
    settings: CallSettings = {},
  ): Promise<ListRoutersResponse> {
    return this.#unary(this.stub.listRouters, ListRoutersRequest.fromPartial(request), settings);
  }

  /** Every endpoint at once, then those that have changed, as they change. Leaving the loop ends the watch. */
  watchEndpoints(
    request: Partly<typeof WatchEndpointsRequest> = {},
    settings: CallSettings = {},
  ): AsyncGenerator<WatchEndpointsResponse> {
    const [metadata, options] = this.#call(settings, Infinity);
    const stream = this.stub.watchEndpoints(WatchEndpointsRequest.fromPartial(request), metadata, options);
    return drained(stream, settings.signal);
  }

  #unary<Request, Response>(
    method: Unary<Request, Response>,
    request: Request,
    settings: CallSettings,
  ): Promise<Response> {
    const [metadata, options] = this.#call(settings);
    return settled(settings.signal, (callback) => method.call(this.stub, request, metadata, options, callback));
  }

  /** In the service config a deadline would be the most that a caller can ask for. */
  #call(settings: CallSettings, defaultTimeoutMs = DEFAULT_TIMEOUT_MS): [Metadata, CallOptions] {
    const metadata = new Metadata();
    if (this.#apiKey !== undefined) {
      metadata.set("authorization", `Bearer ${this.#apiKey}`);
    }
    for (const [key, value] of Object.entries(settings.metadata ?? {})) {
      metadata.set(key, value);
    }
    return [metadata, { deadline: Date.now() + (settings.timeoutMs ?? defaultTimeoutMs) }];
  }
}

/** The one response of a call. */
function settled<Response>(
  signal: AbortSignal | undefined,
  start: (callback: (error: ServiceError | null, response: Response) => void) => { cancel(): void },
): Promise<Response> {
  return new Promise((resolve, reject) => {
    const call = start((error, response) => {
      release();
      if (error === null) {
        resolve(response);
      } else {
        reject(errorOf(error));
      }
    });
    const release = cancelledBy(signal, call);
  });
}

/** The responses of a call that lives no longer than this iterator. */
async function* drained<Response>(
  stream: ClientReadableStream<Response>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Response> {
  const release = cancelledBy(signal, stream);
  // Whatever the loop over the stream does not see, such as the end of a call that was left, must not end the process.
  stream.on("error", () => {});
  try {
    for await (const response of stream) {
      yield response as Response;
    }
  } catch (error) {
    throw errorOf(error);
  } finally {
    release();
    // gRPC's own call goes on when its iterator is abandoned.
    stream.cancel();
  }
}

/** Cancels the call with the signal; what it returns ends that. */
function cancelledBy(signal: AbortSignal | undefined, call: { cancel(): void }): () => void {
  if (signal === undefined) {
    return () => {};
  }
  const cancel = (): void => call.cancel();
  if (signal.aborted) {
    cancel();
  }
  signal.addEventListener("abort", cancel, { once: true });
  return () => signal.removeEventListener("abort", cancel);
}
