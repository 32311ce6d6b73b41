// Pointsman from a browser: a client of the generated service over gRPC-Web, and what a caller wants of it most.

import { ConnectError, createClient, type Client } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { ErrorInfoSchema } from "./gen/google/rpc/error_details_pb";
import { Role, type ConversationSchema } from "./gen/pointsman/v1/chat_pb";
import { RouterService } from "./gen/pointsman/v1/router_service_pb";

export type PointsmanClient = Client<typeof RouterService>;

/** A client of the Envoy at `baseUrl`, such as http://127.0.0.1:8080; with a key if the server asks for one. */
export function connect(baseUrl: string, apiKey?: string): PointsmanClient {
  return createClient(
    RouterService,
    createGrpcWebTransport({
      baseUrl,
      interceptors: [
        (next) => (request) => {
          if (apiKey) request.header.set("authorization", `Bearer ${apiKey}`);
          return next(request);
        },
      ],
    }),
  );
}

/** A conversation of one turn of the user. */
export function userSays(text: string): MessageInitShape<typeof ConversationSchema> {
  return { messages: [{ role: Role.USER, parts: [{ content: { case: "text", value: { text } } }] }] };
}

/** Why a call failed: its reason, such as ERROR_REASON_STREAM_BROKEN, with what belongs to it, and words for people. */
export function failureOf(error: unknown): { reason: string; metadata: Record<string, string>; message: string } {
  const status = ConnectError.from(error);
  // A proxy's own ErrorInfo has another domain.
  const info = status.findDetails(ErrorInfoSchema).find(({ domain }) => domain === "pointsman");
  return { reason: info?.reason ?? "", metadata: info?.metadata ?? {}, message: status.rawMessage };
}
