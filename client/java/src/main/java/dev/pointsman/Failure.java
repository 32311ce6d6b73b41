package dev.pointsman;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.QuotaFailure;
import com.google.rpc.RetryInfo;
import dev.pointsman.v1.AttemptsExhausted;
import dev.pointsman.v1.ErrorReason;
import dev.pointsman.v1.NoEligibleEndpoint;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * How a call failed, as far as the server said.
 *
 * @param code how gRPC calls it
 * @param message the server's words
 * @param reason UNSPECIFIED where the failure did not come from Pointsman
 * @param metadata facts that belong to the reason; {@link ErrorReason} documents them
 * @param fieldViolations every fault of a wrong request
 * @param quotaViolations the limits that are reached
 * @param noEligibleEndpoint the rejections, and the nearest changes of bounds that would be enough
 * @param attemptsExhausted what each attempt met
 * @param retryAfter how long to wait before trying again
 */
public record Failure(
    Status.Code code,
    String message,
    ErrorReason reason,
    Map<String, String> metadata,
    List<BadRequest.FieldViolation> fieldViolations,
    List<QuotaFailure.Violation> quotaViolations,
    Optional<NoEligibleEndpoint> noEligibleEndpoint,
    Optional<AttemptsExhausted> attemptsExhausted,
    Optional<Duration> retryAfter) {

  /** Domain of the ErrorInfo whose reasons are of Pointsman; a proxy's own ErrorInfo has another. */
  private static final String ERROR_DOMAIN = "pointsman";

  /** Reads what a call was answered with: a StatusRuntimeException, or whatever was caused by one. */
  public static Failure of(Throwable thrown) {
    Status status = Status.fromThrowable(thrown);
    com.google.rpc.Status sent = StatusProto.fromThrowable(thrown);
    List<Any> details = sent == null ? List.of() : sent.getDetailsList();
    Optional<ErrorInfo> info =
        detail(details, ErrorInfo.class).filter(found -> found.getDomain().equals(ERROR_DOMAIN));
    return new Failure(
        status.getCode(),
        status.getDescription() == null ? "" : status.getDescription(),
        info.map(found -> reasonOf(found.getReason())).orElse(ErrorReason.ERROR_REASON_UNSPECIFIED),
        info.map(ErrorInfo::getMetadataMap).orElse(Map.of()),
        detail(details, BadRequest.class).map(BadRequest::getFieldViolationsList).orElse(List.of()),
        detail(details, QuotaFailure.class).map(QuotaFailure::getViolationsList).orElse(List.of()),
        detail(details, NoEligibleEndpoint.class),
        detail(details, AttemptsExhausted.class),
        detail(details, RetryInfo.class).map(found -> durationOf(found.getRetryDelay())));
  }

  private static <M extends Message> Optional<M> detail(List<Any> details, Class<M> type) {
    for (Any packed : details) {
      if (packed.is(type)) {
        try {
          return Optional.of(packed.unpack(type));
        } catch (InvalidProtocolBufferException undecodable) {
          return Optional.empty();
        }
      }
    }
    return Optional.empty();
  }

  private static ErrorReason reasonOf(String name) {
    ErrorReason known = null;
    for (ErrorReason reason : ErrorReason.values()) {
      known = reason.name().equals(name) ? reason : known;
    }
    return known == null ? ErrorReason.UNRECOGNIZED : known;
  }

  private static Duration durationOf(com.google.protobuf.Duration delay) {
    return Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
  }
}
