package dev.pointsman.examples;

import dev.pointsman.Failure;
import dev.pointsman.Messages;
import dev.pointsman.PointsmanClient;
import dev.pointsman.v1.Candidate;
import dev.pointsman.v1.RouteRequest;
import dev.pointsman.v1.Routing;
import io.grpc.StatusRuntimeException;
import java.util.Locale;

/** Asks where a prompt should go. */
public final class RouteExample {
  private RouteExample() {}

  public static void main(String[] arguments) {
    String target = arguments.length > 0 ? arguments[0] : "127.0.0.1:50061";
    RouteRequest request =
        RouteRequest.newBuilder()
            .setConversation(Messages.conversation(Messages.user("What is 17 * 23?")))
            .setRouting(Routing.newBuilder().setRouter("router@q:1|rc:5|c<2"))
            .build();
    try (PointsmanClient client = PointsmanClient.of(target)) {
      for (Candidate candidate : client.blocking().route(request).getDecision().getCandidatesList()) {
        if (candidate.getRank() > 0) {
          double quality = candidate.getQuality().getMean();
          System.out.printf(
              Locale.ROOT, "%d. %s, quality %.2f%n", candidate.getRank(), candidate.getEndpoint(), quality);
        }
      }
    } catch (StatusRuntimeException thrown) {
      Failure.of(thrown).noEligibleEndpoint().ifPresent(found -> System.err.println(found.getCandidatesList()));
      throw thrown;
    }
  }
}
