package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import dev.flotilla.StaleReads;
import dev.flotilla.gateway.GatewayHandler.Takes;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.util.Locale;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.eclipse.jetty.http.HttpHeader;
import org.eclipse.jetty.io.Content;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.util.Callback;
import org.eclipse.jetty.util.Fields.Field;

/**
 * One request and its response, read and written by blocking calls of bounded length on a virtual
 * thread.
 */
final class Exchange {

  /** The client went away, or takes nothing; there is nobody to tell. */
  static final class ClientGone extends RuntimeException {
    private static final long serialVersionUID = 1L;

    ClientGone(String message) {
      super(message, null, false, false);
    }
  }

  /** What a client must at least send of a long body. */
  private static final double SLOWEST_BYTES_PER_SECOND = 16 << 10;

  /** What is read of a body that nobody wants, so that the connection can be used again. */
  private static final int UNREAD_BYTES = 256 << 10;

  private static final long UNREAD_NS = 1_000_000_000L;

  private static final long DISCARD_BYTES = 64 << 20;
  private static final long DISCARD_NS = 5_000_000_000L;

  private final Request request;
  private final Response response;
  private final GatewayConfig.Limits limits;
  private final CompletableFuture<Void> gone = new CompletableFuture<>();
  private String keyName = "";
  private Takes takes = Takes.ANYTHING;

  /** Whether nothing more is to be read of the request: it is at its end, or not worth it. */
  private boolean requestEnded;

  Exchange(Request request, Response response, GatewayConfig.Limits limits) {
    this.request = request;
    this.response = response;
    this.limits = limits;
    response.getHeaders().put("X-Content-Type-Options", "nosniff");
  }

  Request request() {
    return request;
  }

  /** Whose key the request came with, once that is known. */
  void keyName(String name) {
    keyName = name;
  }

  /** The name of the key that the request came with; empty where none is needed. */
  String keyName() {
    return keyName;
  }

  GatewayConfig.Limits limits() {
    return limits;
  }

  String method() {
    return request.getMethod();
  }

  /** As it was sent, percent signs and all. */
  String path() {
    String path = request.getHttpURI().getPath();
    return path == null ? "" : path;
  }

  Optional<String> query(String name) {
    Field field = query().get(name);
    return field == null ? Optional.empty() : Optional.ofNullable(field.getValue());
  }

  private org.eclipse.jetty.util.Fields query() {
    try {
      return Request.extractQueryParameters(request);
    } catch (IllegalArgumentException e) {
      throw ApiError.of(400, "invalid_value", "The query of the address is not well-formed.");
    }
  }

  /**
   * What this request may hold, from its route: the query is checked now, the body when it is read.
   *
   * @throws ApiError 400 naming a parameter that is not among them, and those that are
   */
  void takes(Takes known) {
    takes = known;
    if (!known.anything()) {
      for (String name : query().getNames()) {
        if (!known.query().contains(name)) {
          throw ApiError.unknown("parameter", name, known.query());
        }
      }
    }
  }

  Optional<String> header(String name) {
    return Optional.ofNullable(request.getHeaders().get(name));
  }

  void putHeader(String name, String value) {
    response.getHeaders().put(name, value);
  }

  /** The body as a JSON object. */
  Fields json() {
    Fields fields = Fields.read(body());
    return takes.anything() ? fields : fields.only(takes.fields());
  }

  /**
   * The whole body.
   *
   * @throws ApiError 413 as soon as it is known to be too large, 408 if it is not there in time
   */
  byte[] body() {
    refuseEncoded();
    if (request.getLength() > limits.bodyBytes()) {
      throw tooLarge(limits.bodyBytes());
    }
    long deadlineNs = System.nanoTime() + limits.body().toNanos();
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    Semaphore available = new Semaphore(0);
    while (true) {
      Content.Chunk chunk = request.read();
      if (chunk == null) {
        request.demand(available::release);
        awaitBody(available, deadlineNs);
        continue;
      }
      if (Content.Chunk.isFailure(chunk)) {
        throw brokeOff(chunk);
      }
      boolean last = chunk.isLast();
      requestEnded = last;
      if (bytes.size() + chunk.remaining() > limits.bodyBytes()) {
        chunk.release();
        throw tooLarge(limits.bodyBytes());
      }
      byte[] part = new byte[chunk.remaining()];
      chunk.get(part, 0, part.length);
      chunk.release();
      bytes.writeBytes(part);
      if (last) {
        return bytes.toByteArray();
      }
      if (System.nanoTime() > deadlineNs) {
        throw bodyTooSlow();
      }
    }
  }

  private void refuseEncoded() {
    String encoding = header("Content-Encoding").orElse("identity").toLowerCase(Locale.ROOT);
    if (!encoding.equals("identity")) {
      throw ApiError.of(
          415, "unsupported_encoding", "Content-Encoding " + encoding + " is not accepted.");
    }
  }

  /**
   * The body as it comes, for those that are too large to be held. A client is given up that sends
   * nothing for as long as a whole small body may take, or, after that time, less than {@link
   * #SLOWEST_BYTES_PER_SECOND} on average.
   *
   * @param bytesMax 413 for more
   */
  InputStream bodyStream(long bytesMax) {
    refuseEncoded();
    if (request.getLength() > bytesMax) {
      throw tooLarge(bytesMax);
    }
    return new InputStream() {
      private final Semaphore available = new Semaphore(0);
      private final long startNs = System.nanoTime();
      private byte[] part = new byte[0];
      private int position;
      private long count;
      private boolean last;

      @Override
      public int read() {
        byte[] one = new byte[1];
        return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
      }

      @Override
      public int read(byte[] bytes, int offset, int length) {
        if (length == 0) {
          return 0;
        }
        while (position == part.length) {
          if (last) {
            return -1;
          }
          next();
        }
        int copied = Math.min(length, part.length - position);
        System.arraycopy(part, position, bytes, offset, copied);
        position += copied;
        return copied;
      }

      private void next() {
        Content.Chunk chunk = request.read();
        while (chunk == null) {
          request.demand(available::release);
          awaitBody(available, System.nanoTime() + limits.body().toNanos());
          chunk = request.read();
        }
        if (Content.Chunk.isFailure(chunk)) {
          throw brokeOff(chunk);
        }
        last = chunk.isLast();
        requestEnded = last;
        part = new byte[chunk.remaining()];
        position = 0;
        chunk.get(part, 0, part.length);
        chunk.release();
        count += part.length;
        if (count > bytesMax) {
          throw tooLarge(bytesMax);
        }
        long lateNs = System.nanoTime() - startNs - limits.body().toNanos();
        if (!last && lateNs > 0 && count < lateNs / 1e9 * SLOWEST_BYTES_PER_SECOND) {
          throw bodyTooSlow();
        }
      }
    };
  }

  /**
   * Reads what a refused client still sends, within bounds, so that it hears why: many do not read
   * an answer while they write, and take a closed connection for a lost one.
   */
  void discard(InputStream body) {
    long deadlineNs = System.nanoTime() + DISCARD_NS;
    byte[] piece = new byte[1 << 16];
    try {
      long left = DISCARD_BYTES;
      while (left > 0 && System.nanoTime() < deadlineNs) {
        int count = body.read(piece);
        if (count < 0) {
          return;
        }
        left -= count;
      }
    } catch (IOException | ApiError | ClientGone e) {
      // It is refused anyway.
    }
    closeAfterwards();
  }

  private RuntimeException brokeOff(Content.Chunk chunk) {
    return chunk.getFailure() instanceof TimeoutException
        ? bodyTooSlow()
        : new ClientGone("the request's body broke off: " + chunk.getFailure());
  }

  /**
   * Before the answer: reads what is left of the request, within bounds, else announces that the
   * connection ends. Jetty ends it without a word when an answer is complete before its request, as
   * often happens where a body is not looked at and comes behind its header; the client's next
   * request then runs into the closed connection.
   */
  private void endRequest() {
    if (requestEnded || request.getConnectionMetaData().getHttpVersion().getVersion() >= 20) {
      return;
    }
    if (header("Expect").isPresent() || request.getLength() > UNREAD_BYTES) {
      closeAfterwards();
      return;
    }
    long deadlineNs = System.nanoTime() + UNREAD_NS;
    Semaphore available = new Semaphore(0);
    int left = UNREAD_BYTES;
    while (left >= 0) {
      Content.Chunk chunk = request.read();
      if (chunk == null) {
        request.demand(available::release);
        try {
          if (!available.tryAcquire(deadlineNs - System.nanoTime(), TimeUnit.NANOSECONDS)) {
            break;
          }
        } catch (InterruptedException e) {
          Thread.currentThread().interrupt();
          break;
        }
        continue;
      }
      if (Content.Chunk.isFailure(chunk)) {
        break;
      }
      requestEnded = chunk.isLast();
      left -= chunk.remaining();
      chunk.release();
      if (requestEnded) {
        return;
      }
    }
    closeAfterwards();
  }

  private void awaitBody(Semaphore available, long deadlineNs) {
    try {
      if (!available.tryAcquire(deadlineNs - System.nanoTime(), TimeUnit.NANOSECONDS)) {
        throw bodyTooSlow();
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw ApiError.of(503, "unavailable", "This node is stopping. Try again, or ask another.");
    }
  }

  private ApiError bodyTooSlow() {
    closeAfterwards();
    return ApiError.of(
        408,
        "request_timeout",
        "The request's body was not complete after "
            + limits.body().toSeconds()
            + " s. Send it faster, or less of it.");
  }

  private ApiError tooLarge(long bytesMax) {
    closeAfterwards();
    return ApiError.of(
        413,
        "request_too_large",
        "The request's body is larger than the " + bytesMax + " bytes accepted.");
  }

  /** What is left of the request is not worth reading. */
  private void closeAfterwards() {
    requestEnded = true;
    if (request.getConnectionMetaData().getHttpVersion().getVersion() < 20) {
      putHeader("Connection", "close");
    }
  }

  /**
   * Whether the client would rather have an old answer than none.
   *
   * @throws ApiError 400 if it says so in a way of its own
   */
  boolean allowsStale() {
    return query(StaleReads.PARAMETER)
        .map(
            text -> {
              if (!text.equals("true") && !text.equals("false")) {
                throw ApiError.invalid(
                    StaleReads.PARAMETER, StaleReads.PARAMETER + " must be true or false.");
              }
              return text.equals("true");
            })
        .orElse(false);
  }

  /** Runs what answers, which may be old if the address or the body's field says so. */
  void maybeStale(Fields body, Runnable answer) {
    if (body.flag(StaleReads.PARAMETER, false) || allowsStale()) {
      var _ =
          StaleReads.allow(
              () -> {
                answer.run();
                return true;
              });
    } else {
      answer.run();
    }
  }

  /** Says so if what was read for this answer may be old; before the answer starts. */
  private void markStale() {
    if (StaleReads.marked()) {
      putHeader(StaleReads.HEADER, "true");
    }
  }

  /** Answers with JSON; an object says whether it may be old, if that was allowed. */
  void send(int status, JsonNode body) {
    putHeader("Cache-Control", "no-store");
    if (status == 200 && StaleReads.allowed() && body instanceof ObjectNode object) {
      object.put("stale", StaleReads.marked());
    }
    send(status, "application/json", Json.write(body));
  }

  /**
   * Answers with what this node's copy of the cluster's decisions says, which is marked where it
   * may be old.
   *
   * @param majority whether this node sees a majority of the cluster
   */
  void sendCopy(JsonNode body, boolean majority) {
    if (!majority) {
      var _ = StaleReads.mark();
      putHeader(StaleReads.HEADER, "true");
      if (body instanceof ObjectNode object) {
        object.put("stale", true);
      }
    }
    send(200, body);
  }

  /** Answers with an error. */
  void send(ApiError error) {
    error.retryAfterSeconds().ifPresent(s -> putHeader("Retry-After", Integer.toString(s)));
    if (error.status() == 401) {
      putHeader("WWW-Authenticate", "Bearer");
    }
    send(error.status(), error.body());
  }

  void send(int status, String contentType, byte[] body) {
    markStale();
    response.setStatus(status);
    response.getHeaders().put(HttpHeader.CONTENT_TYPE, contentType);
    response.getHeaders().put(HttpHeader.CONTENT_LENGTH, body.length);
    write(true, body);
  }

  /** Starts an answer that is written piece by piece. */
  void startStream(String contentType) {
    markStale();
    response.setStatus(200);
    response.getHeaders().put(HttpHeader.CONTENT_TYPE, contentType);
    putHeader("Cache-Control", "no-cache");
    putHeader("X-Accel-Buffering", "no");
  }

  /**
   * Starts an answer of a known length, to be written piece by piece, or not at all if only its
   * head was asked for.
   */
  void start(int status, String contentType, long length) {
    markStale();
    response.setStatus(status);
    response.getHeaders().put(HttpHeader.CONTENT_TYPE, contentType);
    response.getHeaders().put(HttpHeader.CONTENT_LENGTH, length);
  }

  boolean started() {
    return response.isCommitted();
  }

  /**
   * Writes and flushes.
   *
   * @throws ClientGone if the client is away, or takes nothing for too long
   */
  void write(boolean last, byte[] bytes) {
    if (!started()) {
      endRequest();
    }
    CompletableFuture<Void> written = new CompletableFuture<>();
    response.write(
        last,
        ByteBuffer.wrap(bytes),
        Callback.from(() -> written.complete(null), written::completeExceptionally));
    try {
      CompletableFuture.anyOf(written, gone)
          .get(limits.writeStall().toMillis(), TimeUnit.MILLISECONDS);
    } catch (TimeoutException e) {
      throw new ClientGone("the client took nothing for " + limits.writeStall().toMillis() + " ms");
    } catch (ExecutionException e) {
      throw new ClientGone("the client is away: " + e.getCause());
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new ClientGone("this node is stopping");
    }
  }

  /** Makes every write, a waiting one too, fail: from now on the client counts as away. */
  void giveUp(String why) {
    gone.completeExceptionally(new ClientGone(why));
  }
}
