package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.cluster.Fence;
import dev.flotilla.data.blobs.Blobs;
import dev.flotilla.data.blobs.Blobs.Blob;
import dev.flotilla.data.blobs.Blobs.Reference;
import dev.flotilla.gateway.GatewayHandler.Access;
import dev.flotilla.gateway.GatewayHandler.Route;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.List;
import java.util.Optional;
import java.util.function.Function;

/**
 * Blobs over HTTP. A bucket is {@code default} unless {@code ?bucket=} or a field names another; a
 * name is one segment of the path, its slashes percent-encoded.
 *
 * <ul>
 *   <li>{@code POST /api/blobs} (bytes) → {@code {"digest","size"}}
 *   <li>{@code GET|HEAD /api/blobs/{digest}}, with {@code Range}, {@code If-Range} and {@code
 *       If-None-Match}; the ETag is the digest. {@code DELETE} takes the digest out of the bucket
 *   <li>{@code GET /api/blobs?prefix=&after=&limit=} → references
 *   <li>{@code PUT /api/blobs/names/{name} {"digest","bucket","version","fence":{"lock","token"}}},
 *       {@code GET}, {@code DELETE ?lock=&token=}
 *   <li>{@code POST /api/blobs/uploads {"bucket"}} → {@code {"id","offset"}}; {@code PUT
 *       …/{id}?offset=} (bytes), {@code GET …/{id}}, {@code POST …/{id}/complete {"digest"}},
 *       {@code DELETE …/{id}}
 *   <li>{@code GET|PUT /api/blobs/quotas/{bucket} {"bytes_max","count_max"}}
 *   <li>{@code POST /api/blobs/scrub}, {@code GET /api/blobs/stats} → one object per node
 * </ul>
 */
final class BlobApi {

  private static final ObjectMapper SNAKE_CASE =
      Json.MAPPER.copy().setPropertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE);
  private static final int PIECE_BYTES = 64 << 10;
  private static final String BYTES = "application/octet-stream";

  /** Blobs bound themselves; this is for a body that never ends. */
  private static final long BODY_BYTES_MAX = 257L << 30;

  private final GatewayServices services;

  BlobApi(GatewayServices services) {
    this.services = services;
  }

  List<Route> routes() {
    return List.of(
        Route.of("POST", "/api/blobs", Access.WORK, this::put).query("bucket"),
        Route.of("GET", "/api/blobs", Access.KEY, this::list)
            .query("bucket", "prefix", "after", "limit"),
        Route.of("GET", "/api/blobs/stats", Access.KEY, this::stats),
        Route.of("POST", "/api/blobs/scrub", Access.WORK, this::scrub),
        Route.of("POST", "/api/blobs/uploads", Access.WORK, this::startUpload)
            .query("bucket")
            .fields("bucket"),
        Route.named("PUT", "/api/blobs/uploads/*", Access.WORK, this::append).query("offset"),
        Route.named("GET", "/api/blobs/uploads/*", Access.KEY, this::upload),
        Route.named("DELETE", "/api/blobs/uploads/*", Access.WORK, this::abandon),
        Route.named("POST", "/api/blobs/uploads/*/complete", Access.WORK, this::complete)
            .fields("digest"),
        Route.named("PUT", "/api/blobs/names/*", Access.WORK, this::name)
            .query("bucket")
            .fields("digest", "bucket", "version", "fence"),
        Route.named("GET", "/api/blobs/names/*", Access.KEY, this::reference).query("bucket"),
        Route.named("DELETE", "/api/blobs/names/*", Access.WORK, this::unname)
            .query("bucket", "lock", "token"),
        Route.named("GET", "/api/blobs/quotas/*", Access.KEY, this::quota),
        Route.named("PUT", "/api/blobs/quotas/*", Access.WORK, this::limit)
            .fields("bytes_max", "count_max"),
        Route.named("GET", "/api/blobs/*", Access.KEY, this::get),
        Route.named("DELETE", "/api/blobs/*", Access.WORK, this::unname)
            .query("bucket", "lock", "token"));
  }

  private Blobs blobs() {
    return services.data().blobs();
  }

  private static JsonNode json(Object value) {
    return SNAKE_CASE.valueToTree(value);
  }

  private static String bucket(Exchange exchange) {
    return exchange.query("bucket").orElse(Blobs.DEFAULT_BUCKET);
  }

  private void put(Exchange exchange) {
    String bucket = bucket(exchange);
    Blob blob = reading(exchange, content -> blobs().put(bucket, content));
    exchange.send(200, json(blob));
  }

  private static <T> T reading(Exchange exchange, Function<InputStream, T> take) {
    InputStream content = exchange.bodyStream(BODY_BYTES_MAX);
    try {
      return take.apply(content);
    } catch (FlotillaException refused) {
      exchange.discard(content);
      throw refused;
    }
  }

  private void list(Exchange exchange) {
    int limit =
        exchange.query("limit").map(text -> (int) number("limit", text, 1, 10_000)).orElse(1_000);
    exchange.send(
        200,
        json(
            blobs()
                .list(
                    bucket(exchange),
                    exchange.query("prefix").orElse(""),
                    exchange.query("after").orElse(""),
                    limit)));
  }

  private static long number(String field, String text, long least, long most) {
    try {
      long number = Long.parseLong(text);
      if (number >= least && number <= most) {
        return number;
      }
    } catch (NumberFormatException e) {
      // Said below.
    }
    throw ApiError.invalid(field, field + " must be an integer from " + least + " to " + most);
  }

  private void get(Exchange exchange, String digest) {
    Blob blob = blobs().find(digest).orElseThrow(() -> none("blob " + digest));
    String tag = "\"" + blob.digest() + "\"";
    exchange.putHeader("ETag", tag);
    exchange.putHeader("Accept-Ranges", "bytes");
    // A digest's content never changes.
    exchange.putHeader("Cache-Control", "private, max-age=31536000, immutable");
    if (exchange.header("If-None-Match").filter(tags -> matches(tags, tag)).isPresent()) {
      exchange.start(304, BYTES, blob.size());
      exchange.write(true, new byte[0]);
      return;
    }
    Optional<ByteRange> range =
        exchange
            .header("Range")
            .filter(r -> exchange.header("If-Range").map(tag::equals).orElse(true))
            .flatMap(header -> ByteRange.of(header, blob.size()));
    if (range.equals(Optional.of(ByteRange.NONE))) {
      exchange.putHeader("Content-Range", "bytes */" + blob.size());
      throw ApiError.of(
          416,
          "range_not_satisfiable",
          "The blob has " + blob.size() + " bytes, and none of those asked for.");
    }
    ByteRange sent = range.orElse(new ByteRange(0, blob.size()));
    range.ifPresent(
        part ->
            exchange.putHeader(
                "Content-Range",
                "bytes "
                    + part.first()
                    + "-"
                    + (part.first() + part.length() - 1)
                    + "/"
                    + blob.size()));
    int status = range.isPresent() ? 206 : 200;
    if (exchange.method().equals("HEAD") || sent.length() == 0) {
      exchange.start(status, BYTES, sent.length());
      exchange.write(true, new byte[0]);
      return;
    }
    send(exchange, status, digest, sent);
  }

  private static boolean matches(String tags, String tag) {
    return tags.strip().equals("*") || tags.contains(tag);
  }

  private void send(Exchange exchange, int status, String digest, ByteRange range) {
    try (InputStream content = blobs().read(digest, range.first(), range.length())) {
      byte[] piece = new byte[PIECE_BYTES];
      long left = range.length();
      while (left > 0) {
        // The first piece is there before the answer begins: till then an error can be told.
        int count = content.readNBytes(piece, 0, (int) Math.min(left, piece.length));
        if (count == 0) {
          throw new IllegalStateException("the blob ended early");
        }
        if (left == range.length()) {
          exchange.start(status, BYTES, range.length());
        }
        left -= count;
        exchange.write(left == 0, java.util.Arrays.copyOf(piece, count));
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static ApiError none(String what) {
    return ApiError.of(404, "not_found", "There is no " + what + ".");
  }

  private void name(Exchange exchange, String name) {
    Fields body = exchange.json();
    Optional<Fence> fence = LocksApi.fence(body);
    exchange.send(
        200,
        json(
            blobs()
                .name(
                    body.text("bucket").orElse(bucket(exchange)),
                    name,
                    body.requiredText("digest"),
                    body.integer("version", 0, Long.MAX_VALUE),
                    fence)));
  }

  private void reference(Exchange exchange, String name) {
    Reference found =
        blobs()
            .reference(bucket(exchange), name)
            .orElseThrow(() -> none(name + " in bucket " + bucket(exchange)));
    exchange.send(200, json(found));
  }

  private void unname(Exchange exchange, String name) {
    Optional<Fence> fence =
        exchange
            .query("lock")
            .map(
                lock ->
                    new Fence(
                        lock,
                        number("token", exchange.query("token").orElse(""), 1, Long.MAX_VALUE)));
    if (!blobs().remove(bucket(exchange), name, fence)) {
      throw none(name + " in bucket " + bucket(exchange));
    }
    exchange.send(200, Json.MAPPER.createObjectNode().put("removed", true));
  }

  private void startUpload(Exchange exchange) {
    exchange.send(
        200, json(blobs().startUpload(exchange.json().text("bucket").orElse(bucket(exchange)))));
  }

  private void append(Exchange exchange, String id) {
    long offset =
        number(
            "offset",
            exchange.query("offset").orElseThrow(() -> ApiError.missing("offset")),
            0,
            Long.MAX_VALUE);
    exchange.send(200, json(reading(exchange, content -> blobs().append(id, offset, content))));
  }

  private void upload(Exchange exchange, String id) {
    exchange.send(200, json(blobs().upload(id)));
  }

  private void abandon(Exchange exchange, String id) {
    blobs().abandon(id);
    exchange.send(200, Json.MAPPER.createObjectNode().put("removed", true));
  }

  private void complete(Exchange exchange, String id) {
    exchange.send(200, json(blobs().complete(id, exchange.json().text("digest"))));
  }

  private void quota(Exchange exchange, String bucket) {
    exchange.send(200, json(blobs().quota(bucket)));
  }

  private void limit(Exchange exchange, String bucket) {
    Fields body = exchange.json();
    exchange.send(
        200,
        json(
            blobs()
                .limit(
                    bucket,
                    body.integer("bytes_max", 0, Long.MAX_VALUE).orElse(Long.MAX_VALUE),
                    body.integer("count_max", 0, Long.MAX_VALUE).orElse(Long.MAX_VALUE))));
  }

  private void scrub(Exchange exchange) {
    exchange.send(200, json(blobs().scrub()));
  }

  private void stats(Exchange exchange) {
    exchange.send(200, json(blobs().nodes()));
  }
}
