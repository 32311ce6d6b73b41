package dev.pointsman;

import io.grpc.Context;
import java.util.Iterator;
import java.util.function.Supplier;

/**
 * The responses of a call that can be left: gRPC's own iterator goes on with the call when it is abandoned. Closing this
 * one cancels the call, and with it the call at the provider.
 *
 * @param <T> one response
 */
public final class ResponseStream<T> implements Iterator<T>, AutoCloseable {
  private final Context.CancellableContext context;
  private final Iterator<T> responses;

  private ResponseStream(Context.CancellableContext context, Iterator<T> responses) {
    this.context = context;
    this.responses = responses;
  }

  /** Makes the call, such as {@code () -> client.blocking().complete(request)}. */
  public static <T> ResponseStream<T> open(Supplier<Iterator<T>> call) {
    Context.CancellableContext context = Context.current().withCancellation();
    Context previous = context.attach();
    try {
      return new ResponseStream<>(context, call.get());
    } finally {
      context.detach(previous);
    }
  }

  @Override
  public boolean hasNext() {
    return responses.hasNext();
  }

  @Override
  public T next() {
    return responses.next();
  }

  /** Leaves the call. Nothing happens if it has ended. */
  @Override
  public void close() {
    context.cancel(null);
  }
}
