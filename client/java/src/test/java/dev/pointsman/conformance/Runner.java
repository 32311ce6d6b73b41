package dev.pointsman.conformance;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import dev.pointsman.Failure;
import dev.pointsman.PointsmanClient;
import dev.pointsman.ResponseStream;
import dev.pointsman.v1.CompleteRequest;
import dev.pointsman.v1.ErrorReason;
import dev.pointsman.v1.ListEndpointsRequest;
import dev.pointsman.v1.ReportOutcomeRequest;
import dev.pointsman.v1.ReportOutcomesRequest;
import dev.pointsman.v1.ReportOutcomesResponse;
import dev.pointsman.v1.RouteRequest;
import dev.pointsman.v1.WatchEndpointsRequest;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Base64;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.function.Supplier;

/**
 * The runner of the conformance suite: takes calls as lines of JSON, and answers each with what the client saw. See
 * conformance/runner.py, which also explains the fields; they are named as in JSON.
 */
public final class Runner {
  private static final Gson GSON = new GsonBuilder().create();
  private static final int CANCELLED_AFTER_NOTHING = 0;

  private final Map<String, PointsmanClient> clients = new HashMap<>();

  private Runner() {}

  record Job(
      String target,
      String authority_file,
      String api_key,
      Map<String, String> metadata,
      Double timeout_s,
      Integer cancel_after,
      String method,
      List<String> requests) {}

  record Violation(String subject, String description) {}

  record Result(
      String status,
      String message,
      String reason,
      Map<String, String> metadata,
      List<Violation> violations,
      String no_eligible_endpoint,
      String attempts_exhausted,
      Double retry_after_s,
      List<String> responses) {}

  public static void main(String[] arguments) throws IOException {
    BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    PrintStream output = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    Runner runner = new Runner();
    for (String line = input.readLine(); line != null; line = input.readLine()) {
      output.println(GSON.toJson(runner.perform(GSON.fromJson(line, Job.class))));
    }
    runner.clients.values().forEach(PointsmanClient::close);
  }

  private PointsmanClient client(Job job) throws IOException {
    String key = String.join(" ", job.target(), "" + job.authority_file(), "" + job.api_key());
    PointsmanClient client = clients.get(key);
    if (client == null) {
      PointsmanClient.Builder builder = PointsmanClient.builder(job.target());
      if (job.authority_file() != null) {
        builder.tls(new File(job.authority_file()));
      }
      if (job.api_key() != null) {
        builder.apiKey(job.api_key());
      }
      client = builder.build();
      clients.put(key, client);
    }
    return client;
  }

  /** Makes the call, and leaves it after cancel_after responses. */
  private Result perform(Job job) throws IOException {
    List<String> responses = new ArrayList<>();
    PointsmanClient client = client(job);
    int enough = job.cancel_after() == null ? CANCELLED_AFTER_NOTHING : job.cancel_after();
    try (ResponseStream<? extends Message> stream = ResponseStream.open(call(client, job))) {
      while (stream.hasNext()) {
        responses.add(encoded(stream.next()));
        if (responses.size() == enough) {
          return new Result("CANCELLED", "", "", Map.of(), List.of(), null, null, null, responses);
        }
      }
    } catch (StatusRuntimeException thrown) {
      return failed(Failure.of(thrown), responses);
    }
    return new Result("OK", "", "", Map.of(), List.of(), null, null, null, responses);
  }

  private static Supplier<Iterator<Message>> call(PointsmanClient client, Job job)
      throws InvalidProtocolBufferException {
    byte[] request = Base64.getDecoder().decode(job.requests().get(0));
    var stub = prepared(client.blocking(), job);
    switch (job.method()) {
      case "Route":
        return one(stub::route, RouteRequest.parseFrom(request));
      case "ReportOutcome":
        return one(stub::reportOutcome, ReportOutcomeRequest.parseFrom(request));
      case "ListEndpoints":
        return one(stub::listEndpoints, ListEndpointsRequest.parseFrom(request));
      case "ReportOutcomes":
        return one(requests -> reported(client, job, requests), outcomes(job));
      case "Complete":
        return many(stub::complete, CompleteRequest.parseFrom(request));
      case "WatchEndpoints":
        return many(stub::watchEndpoints, WatchEndpointsRequest.parseFrom(request));
      default:
        throw new IllegalArgumentException("there is no method " + job.method());
    }
  }

  private static <S extends AbstractStub<S>> S prepared(S stub, Job job) {
    Metadata headers = new Metadata();
    job.metadata()
        .forEach((key, value) -> headers.put(Metadata.Key.of(key, Metadata.ASCII_STRING_MARSHALLER), value));
    S prepared = stub.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
    return job.timeout_s() == null
        ? prepared
        : prepared.withDeadlineAfter(Math.round(job.timeout_s() * 1e9), TimeUnit.NANOSECONDS);
  }

  private static <Q> Supplier<Iterator<Message>> one(Function<Q, ? extends Message> method, Q request) {
    return () -> List.<Message>of(method.apply(request)).iterator();
  }

  private static <Q, R extends Message> Supplier<Iterator<Message>> many(
      Function<Q, Iterator<R>> method, Q request) {
    return () -> {
      Iterator<R> responses = method.apply(request);
      return new Iterator<>() {
        @Override
        public boolean hasNext() {
          return responses.hasNext();
        }

        @Override
        public Message next() {
          return responses.next();
        }
      };
    };
  }

  private static List<ReportOutcomesRequest> outcomes(Job job) throws InvalidProtocolBufferException {
    List<ReportOutcomesRequest> requests = new ArrayList<>();
    for (String request : job.requests()) {
      requests.add(ReportOutcomesRequest.parseFrom(Base64.getDecoder().decode(request)));
    }
    return requests;
  }

  private static ReportOutcomesResponse reported(
      PointsmanClient client, Job job, List<ReportOutcomesRequest> requests) {
    CompletableFuture<ReportOutcomesResponse> response = new CompletableFuture<>();
    StreamObserver<ReportOutcomesRequest> sending =
        prepared(client.asynchronous(), job)
            .reportOutcomes(
                new StreamObserver<>() {
                  @Override
                  public void onNext(ReportOutcomesResponse received) {
                    response.complete(received);
                  }

                  @Override
                  public void onError(Throwable thrown) {
                    response.completeExceptionally(thrown);
                  }

                  @Override
                  public void onCompleted() {}
                });
    requests.forEach(sending::onNext);
    sending.onCompleted();
    try {
      return response.join();
    } catch (CompletionException thrown) {
      throw (StatusRuntimeException) thrown.getCause();
    }
  }

  private static Result failed(Failure failure, List<String> responses) {
    List<Violation> violations = new ArrayList<>();
    failure.fieldViolations().forEach(each -> violations.add(new Violation(each.getField(), each.getDescription())));
    failure
        .quotaViolations()
        .forEach(each -> violations.add(new Violation(each.getSubject(), each.getDescription())));
    boolean unspecified = failure.reason() == ErrorReason.ERROR_REASON_UNSPECIFIED;
    return new Result(
        failure.code().name(),
        failure.message(),
        unspecified ? "" : failure.reason().name(),
        failure.metadata(),
        violations,
        failure.noEligibleEndpoint().map(Runner::encoded).orElse(null),
        failure.attemptsExhausted().map(Runner::encoded).orElse(null),
        failure.retryAfter().map(delay -> delay.toNanos() / 1e9).orElse(null),
        responses);
  }

  private static String encoded(Message message) {
    return Base64.getEncoder().encodeToString(message.toByteArray());
  }
}
