import { type ServiceError, status } from "@grpc/grpc-js";
import {
  BadRequest,
  type BadRequest_FieldViolation,
  ErrorInfo,
  QuotaFailure,
  type QuotaFailure_Violation,
  RetryInfo,
} from "./generated/google/rpc/error_details.js";
import { Status } from "./generated/google/rpc/status.js";
import { AttemptsExhausted, NoEligibleEndpoint } from "./generated/pointsman/v1/routing.js";

/** Domain of the ErrorInfo whose reasons are of Pointsman; a proxy's own ErrorInfo has another. */
const ERROR_DOMAIN = "pointsman";

interface Decoder<M> {
  decode(input: Uint8Array): M;
}

/** A call failed. Its text is the server's message; what the server did not say is empty or undefined. */
export class PointsmanError extends Error {
  override readonly name = "PointsmanError";
  /** Name of an `ErrorReason`, such as ERROR_REASON_OVERLOADED. Empty: the failure did not come from Pointsman. */
  readonly reason: string;
  /** Facts that belong to the reason; `ErrorReason` documents them. */
  readonly metadata: Readonly<Record<string, string>>;
  /** Every fault of a wrong request. */
  readonly fieldViolations: readonly BadRequest_FieldViolation[];
  /** The limits that are reached. */
  readonly quotaViolations: readonly QuotaFailure_Violation[];
  /** The rejections, and the nearest changes of bounds that would be enough. */
  readonly noEligibleEndpoint: NoEligibleEndpoint | undefined;
  /** What each attempt met. */
  readonly attemptsExhausted: AttemptsExhausted | undefined;
  /** How long to wait before trying again. */
  readonly retryAfterMs: number | undefined;

  constructor(
    /** How gRPC calls it. */
    readonly code: status,
    message: string,
    details: Status["details"],
    cause?: unknown,
  ) {
    super(message, { cause });
    const detail = <M>(type: string, decoder: Decoder<M>): M | undefined => {
      const packed = details.find((each) => each.typeUrl.endsWith(`/${type}`));
      return packed && decoder.decode(packed.value);
    };
    const info = detail("google.rpc.ErrorInfo", ErrorInfo);
    const ours = info?.domain === ERROR_DOMAIN ? info : undefined;
    this.reason = ours?.reason ?? "";
    this.metadata = ours?.metadata ?? {};
    this.fieldViolations = detail("google.rpc.BadRequest", BadRequest)?.fieldViolations ?? [];
    this.quotaViolations = detail("google.rpc.QuotaFailure", QuotaFailure)?.violations ?? [];
    this.noEligibleEndpoint = detail("pointsman.v1.NoEligibleEndpoint", NoEligibleEndpoint);
    this.attemptsExhausted = detail("pointsman.v1.AttemptsExhausted", AttemptsExhausted);
    const delay = detail("google.rpc.RetryInfo", RetryInfo)?.retryDelay;
    this.retryAfterMs = delay && Number(delay.seconds) * 1e3 + delay.nanos / 1e6;
  }
}

/** What stands for a failure of gRPC; anything else, such as a bug of the caller, stays what it is. */
export function errorOf(error: unknown): unknown {
  if (!isServiceError(error)) {
    return error;
  }
  const [packed] = error.metadata?.get("grpc-status-details-bin") ?? [];
  const details = packed instanceof Buffer ? Status.decode(packed).details : [];
  return new PointsmanError(error.code, error.details, details, error);
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && "code" in error && "details" in error && status[error.code as status] !== undefined;
}
