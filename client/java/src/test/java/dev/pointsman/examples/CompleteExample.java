package dev.pointsman.examples;

import dev.pointsman.Messages;
import dev.pointsman.PointsmanClient;
import dev.pointsman.ResponseStream;
import dev.pointsman.v1.CompleteRequest;
import dev.pointsman.v1.CompleteResponse;
import dev.pointsman.v1.Routing;
import java.util.Locale;
import java.util.concurrent.TimeUnit;

/** Streams an answer. */
public final class CompleteExample {
  private CompleteExample() {}

  public static void main(String[] arguments) {
    String target = arguments.length > 0 ? arguments[0] : "127.0.0.1:50061";
    CompleteRequest request =
        CompleteRequest.newBuilder()
            .setConversation(Messages.conversation(Messages.user("Why is the sky blue?")))
            .setRouting(Routing.newBuilder().setRouter("cheap"))
            .build();
    // The deadline is the latency budget; leaving the block closes the call at the provider.
    try (PointsmanClient client = PointsmanClient.of(target);
        ResponseStream<CompleteResponse> responses =
            ResponseStream.open(() -> client.blocking().withDeadlineAfter(60, TimeUnit.SECONDS).complete(request))) {
      while (responses.hasNext()) {
        CompleteResponse response = responses.next();
        switch (response.getEventCase()) {
          case DECISION -> System.out.println("-> " + response.getDecision().getEndpoint());
          case ATTEMPT_FAILED -> System.out.println("failed: " + response.getAttemptFailed().getMessage());
          case DELTA -> System.out.print(response.getDelta().getText());
          case DONE ->
              System.out.printf(
                  Locale.ROOT, "%n%s, $%.6f%n", response.getDone().getEndpoint(), response.getDone().getCostUsd());
          default -> {}
        }
      }
    }
  }
}
