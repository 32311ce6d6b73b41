package dev.pointsman;

import dev.pointsman.v1.RouterServiceGrpc;
import dev.pointsman.v1.ServiceConfig;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.TlsChannelCredentials;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.util.concurrent.TimeUnit;

/**
 * Talks to a Pointsman server: the generated stubs over a channel with the settings that every client of Pointsman has.
 * One client serves any number of concurrent calls. A call without a deadline has one of 10 s, and Complete one of 600 s;
 * Route and the lists are tried again while the server is unavailable.
 */
public final class PointsmanClient implements AutoCloseable {
  /** Where {@code pointsman serve} listens unless it is told otherwise. */
  public static final String DEFAULT_TARGET = "127.0.0.1:50061";

  /** At most a page of 1,000 endpoints, or a decision over 4,096. */
  private static final int RECEIVE_BYTES_MAX = 16 * 1024 * 1024;

  /** Error details travel in the trailers. */
  private static final int METADATA_BYTES_MAX = 512 * 1024;

  /** A connection that died without a word is noticed within 40 s. */
  private static final long KEEPALIVE_TIME_S = 30;

  private static final long KEEPALIVE_TIMEOUT_S = 10;
  private static final long CLOSE_PATIENCE_S = 5;

  /** A decision takes milliseconds, so this only ends a call that hangs. */
  private static final long DEFAULT_TIMEOUT_S = 10;

  /** As long as reasoning models take for their longest answers. */
  private static final long COMPLETE_TIMEOUT_S = 600;

  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final ManagedChannel channel;

  private PointsmanClient(ManagedChannel channel) {
    this.channel = channel;
  }

  /**
   * A client of the server at the target: host:port, or another name that gRPC resolves. It connects with the first call.
   */
  public static PointsmanClient of(String target) {
    return builder(target).build();
  }

  /** The same, with a key or over TLS. */
  public static Builder builder(String target) {
    return new Builder(target);
  }

  /** Calls that wait. A stream is left by {@link ResponseStream#close}. */
  public RouterServiceGrpc.RouterServiceBlockingStub blocking() {
    return RouterServiceGrpc.newBlockingStub(channel);
  }

  /** Calls of one request and one response, as futures. */
  public RouterServiceGrpc.RouterServiceFutureStub futures() {
    return RouterServiceGrpc.newFutureStub(channel);
  }

  /** Calls that report to an observer. */
  public RouterServiceGrpc.RouterServiceStub asynchronous() {
    return RouterServiceGrpc.newStub(channel);
  }

  /** Ends the connection and the calls on it. */
  @Override
  public void close() {
    channel.shutdownNow();
    try {
      channel.awaitTermination(CLOSE_PATIENCE_S, TimeUnit.SECONDS);
    } catch (InterruptedException interrupted) {
      Thread.currentThread().interrupt();
    }
  }

  /** Gives a call its deadline if it has none. In the service config it would be the most that a caller can ask for. */
  private static final class Deadlines implements ClientInterceptor {
    @Override
    public <Q, R> ClientCall<Q, R> interceptCall(MethodDescriptor<Q, R> method, CallOptions options, Channel next) {
      String name = method.getBareMethodName();
      boolean given = options.getDeadline() != null || Context.current().getDeadline() != null;
      if (given || "WatchEndpoints".equals(name)) {
        return next.newCall(method, options);
      }
      long timeout = "Complete".equals(name) ? COMPLETE_TIMEOUT_S : DEFAULT_TIMEOUT_S;
      return next.newCall(method, options.withDeadlineAfter(timeout, TimeUnit.SECONDS));
    }
  }

  /** Says how to connect. */
  public static final class Builder {
    private final String target;
    private ChannelCredentials credentials = InsecureChannelCredentials.create();
    private String apiKey = "";

    private Builder(String target) {
      this.target = target;
    }

    /** Secures the connection; the server's certificate is checked against the system's roots. */
    public Builder tls() {
      credentials = TlsChannelCredentials.create();
      return this;
    }

    /** Secures the connection; the server's certificate is checked against the roots in that PEM file. */
    public Builder tls(File roots) throws IOException {
      credentials = TlsChannelCredentials.newBuilder().trustManager(roots).build();
      return this;
    }

    /** Sends the key with every call. */
    public Builder apiKey(String key) {
      apiKey = key;
      return this;
    }

    /** Makes the client. */
    public PointsmanClient build() {
      ManagedChannelBuilder<?> builder =
          Grpc.newChannelBuilder(target, credentials)
              .defaultServiceConfig(ServiceConfig.VALUE)
              .intercept(new Deadlines())
              .maxInboundMessageSize(RECEIVE_BYTES_MAX)
              .maxInboundMetadataSize(METADATA_BYTES_MAX)
              .keepAliveTime(KEEPALIVE_TIME_S, TimeUnit.SECONDS)
              .keepAliveTimeout(KEEPALIVE_TIMEOUT_S, TimeUnit.SECONDS);
      if (!apiKey.isEmpty()) {
        Metadata headers = new Metadata();
        headers.put(AUTHORIZATION, "Bearer " + apiKey);
        builder.intercept(MetadataUtils.newAttachHeadersInterceptor(headers));
      }
      return new PointsmanClient(builder.build());
    }
  }
}
