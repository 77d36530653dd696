package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.NodeFiles;
import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.util.HexFormat;
import java.util.Objects;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Fetches files by HTTP into a folder, and goes on with what an earlier try left: bytes by {@code
 * Range}, and only while the server says by {@code If-Range} that it is still the same file (RFC
 * 9110, 13.1.5 and 14).
 *
 * <p>A file has its name only once it is whole: all of its bytes, and its SHA-256 where that is
 * known. Until then it is {@code NAME.part}, with the server's tag in {@code NAME.tag}.
 */
final class Download {

  /** Hears how far it is; what it throws ends the download, which can be gone on with. */
  interface Progress {

    /**
     * @param what is being done, such as {@code "downloading model.gguf"}
     * @param bytes done, of {@code totalBytes}; both 0 where that is not known
     */
    void at(String what, long bytes, long totalBytes);
  }

  /**
   * @param name of the file, with folders where it is in some
   * @param sha256 in hex, where the source says it
   * @param bearer a token for this host alone
   */
  record Wanted(URI address, String name, Optional<String> sha256, Optional<String> bearer) {}

  private static final int TRIES = 6;
  private static final int REDIRECTS = 5;
  private static final Duration CONNECT = Duration.ofSeconds(10);
  private static final Duration ANSWER = Duration.ofSeconds(30);
  private static final int BUFFER_BYTES = 1 << 20;
  private static final int CHECK_ROOM_BYTES = 64 << 20;
  private static final Pattern CONTENT_RANGE = Pattern.compile("bytes (\\d+)-\\d+/(\\d+)");

  private static final Pattern NEXT = Pattern.compile("<([^>]+)>\\s*;\\s*rel=\"next\"");

  private final Origins origins;
  private final long firstPauseMs;
  private final HttpClient http =
      HttpClient.newBuilder()
          .connectTimeout(CONNECT)
          .followRedirects(HttpClient.Redirect.NEVER) // each address is checked first
          .build();

  /**
   * @param origins which addresses may be asked
   * @param firstPauseMs before the second try; doubles for each further one
   */
  Download(Origins origins, long firstPauseMs) {
    this.origins = origins;
    this.firstPauseMs = firstPauseMs;
  }

  /**
   * Fetches a file, unless it is there already. Breaks are bridged by trying again.
   *
   * @param room throws where the disk has none left
   * @return the file in the folder
   * @throws FlotillaException {@code NOT_FOUND}, {@code UNAUTHENTICATED}, {@code INVALID} for an
   *     address that may not be asked, {@code BAD_FILE} if what came is not what was announced,
   *     {@code UNAVAILABLE} if the server does not deliver, {@code STORAGE}
   */
  Path file(Wanted wanted, Path folder, Runnable room, Progress progress) {
    Path file = folder.resolve(wanted.name());
    if (Files.exists(file)) {
      return file;
    }
    try {
      Files.createDirectories(Objects.requireNonNull(file.getParent()));
    } catch (IOException e) {
      throw storage(file, e);
    }
    FlotillaException last = null;
    int tries = 0;
    while (tries < TRIES) {
      long before = partBytes(file);
      try {
        part(wanted, file, room, progress);
        NodeFiles.publish(part(file), file);
        Files.deleteIfExists(tag(file));
        return file;
      } catch (Unsteady e) {
        last = e.error;
      } catch (IOException e) {
        throw storage(file, e);
      }
      tries = partBytes(file) > before ? 1 : tries + 1; // who gets on has all tries again
      pause(firstPauseMs << (tries - 1));
    }
    throw Objects.requireNonNull(last);
  }

  /** An answer that was read whole; {@code next} is the page after it (RFC 8288). */
  record Page(byte[] body, Optional<URI> next) {}

  /** A small answer, such as a list; at most {@code bytesMax}. Errors as {@link #file}. */
  Page page(URI address, Optional<String> bearer, int bytesMax) {
    FlotillaException last = null;
    for (int each = 0; each < TRIES; each++) {
      try {
        HttpResponse<InputStream> response = get(address, bearer, HttpRequest.newBuilder());
        try (InputStream body = response.body()) {
          refuse(response, address);
          byte[] bytes = body.readNBytes(bytesMax + 1);
          if (bytes.length > bytesMax) {
            throw new FlotillaException(
                Code.BAD_FILE, address + " is longer than " + bytesMax + " bytes", "");
          }
          return new Page(bytes, next(response));
        } catch (IOException e) {
          throw new Unsteady(broke(address, e));
        }
      } catch (Unsteady e) {
        last = e.error;
        pause(firstPauseMs << each);
      }
    }
    throw Objects.requireNonNull(last);
  }

  private static Optional<URI> next(HttpResponse<?> response) {
    Matcher link = NEXT.matcher(response.headers().firstValue("Link").orElse(""));
    return link.find() ? Optional.of(response.uri().resolve(link.group(1))) : Optional.empty();
  }

  private void part(Wanted wanted, Path file, Runnable room, Progress progress) throws IOException {
    try (FileChannel out =
        FileChannel.open(
            part(file),
            StandardOpenOption.CREATE,
            StandardOpenOption.READ,
            StandardOpenOption.WRITE)) {
      HttpRequest.Builder request = HttpRequest.newBuilder();
      Optional<String> tag =
          Files.exists(tag(file)) ? Optional.of(Files.readString(tag(file))) : Optional.empty();
      if (tag.isEmpty() && wanted.sha256().isEmpty()) {
        out.truncate(0); // nobody could tell whether the rest belongs to it
      }
      if (out.size() > 0) {
        request.header("Range", "bytes=" + out.size() + "-");
        tag.ifPresent(value -> request.header("If-Range", value));
      }
      HttpResponse<InputStream> response = get(wanted.address(), wanted.bearer(), request);
      try (InputStream in = response.body()) {
        if (response.statusCode() == 416) {
          out.truncate(0);
          Files.deleteIfExists(tag(file));
          throw new Unsteady(changed(wanted));
        }
        refuse(response, wanted.address());
        long total = begin(response, out, file);
        copy(wanted, in, out, total, room, progress);
        if (total >= 0 && out.size() != total) {
          throw new Unsteady(
              new FlotillaException(
                  Code.UNAVAILABLE,
                  wanted.address() + " broke off after " + out.size() + " of " + total + " bytes",
                  "Try again; it goes on where it stopped."));
        }
      }
      out.force(true);
      check(wanted, out, file);
    }
  }

  /** Keeps what is there if the answer goes on from its end; returns the whole length, or -1. */
  private static long begin(HttpResponse<InputStream> response, FileChannel out, Path file)
      throws IOException {
    Matcher range =
        CONTENT_RANGE.matcher(response.headers().firstValue("Content-Range").orElse(""));
    if (response.statusCode() == 206 && range.matches()) {
      long from = Long.parseLong(range.group(1));
      if (from <= out.size()) {
        out.truncate(from);
        out.position(from);
        return Long.parseLong(range.group(2));
      }
    }
    if (response.statusCode() != 200) {
      out.truncate(0);
      throw new Unsteady(
          new FlotillaException(
              Code.UNAVAILABLE, response.uri() + " answered with another part of the file", ""));
    }
    out.truncate(0);
    Optional<String> tag =
        response.headers().firstValue("ETag").filter(value -> !value.startsWith("W/"));
    if (tag.isPresent()) {
      Files.writeString(tag(file), tag.get());
    } else {
      Files.deleteIfExists(tag(file));
    }
    return response.headers().firstValueAsLong("Content-Length").orElse(-1);
  }

  private static void copy(
      Wanted wanted, InputStream in, FileChannel out, long total, Runnable room, Progress progress)
      throws IOException {
    byte[] buffer = new byte[BUFFER_BYTES];
    long sinceCheck = CHECK_ROOM_BYTES;
    while (true) {
      int count;
      try {
        count = in.read(buffer);
      } catch (IOException e) {
        throw new Unsteady(broke(wanted.address(), e));
      }
      if (count < 0) {
        return;
      }
      sinceCheck += count;
      if (sinceCheck >= CHECK_ROOM_BYTES) {
        room.run();
        sinceCheck = 0;
      }
      for (ByteBuffer bytes = ByteBuffer.wrap(buffer, 0, count); bytes.hasRemaining(); ) {
        out.write(bytes);
      }
      progress.at("downloading " + wanted.name(), out.position(), Math.max(total, 0));
    }
  }

  private static void check(Wanted wanted, FileChannel out, Path file) throws IOException {
    if (wanted.sha256().isEmpty()) {
      return;
    }
    MessageDigest digest = sha256();
    ByteBuffer buffer = ByteBuffer.allocate(BUFFER_BYTES);
    for (long at = 0; at < out.size(); at += buffer.limit()) {
      int count = out.read(buffer.clear(), at);
      if (count <= 0) {
        break;
      }
      digest.update(buffer.flip());
    }
    if (!HexFormat.of().formatHex(digest.digest()).equals(wanted.sha256().get())) {
      out.truncate(0);
      Files.deleteIfExists(tag(file));
      throw new FlotillaException(
          Code.BAD_FILE,
          wanted.name() + " from " + wanted.address() + " does not match its SHA-256",
          "It was dropped; try again.");
    }
  }

  static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every JDK has SHA-256", e);
    }
  }

  /** Follows redirects, each address checked; the token goes to the first host only. */
  private HttpResponse<InputStream> get(
      URI address, Optional<String> bearer, HttpRequest.Builder headers) {
    URI at = address;
    for (int hops = 0; hops <= REDIRECTS; hops++) {
      origins.check(at);
      HttpRequest.Builder request = headers.copy().uri(at).timeout(ANSWER).GET();
      request.header("User-Agent", "flotilla");
      if (Origins.same(at, address)) {
        bearer.ifPresent(token -> request.header("Authorization", "Bearer " + token));
      }
      HttpResponse<InputStream> response;
      try {
        response = http.send(request.build(), HttpResponse.BodyHandlers.ofInputStream());
      } catch (IOException e) {
        throw new Unsteady(broke(at, e));
      } catch (InterruptedException e) {
        throw interrupted(e);
      }
      Optional<String> location = response.headers().firstValue("Location");
      if (response.statusCode() / 100 != 3 || response.statusCode() == 304 || location.isEmpty()) {
        return response;
      }
      close(response);
      URI next;
      try {
        next = at.resolve(location.get());
      } catch (IllegalArgumentException e) {
        throw new FlotillaException(
            Code.UNAVAILABLE, at + " redirects to what is no address", "", e);
      }
      if (Origins.isSecure(at) && !Origins.isSecure(next)) {
        throw new FlotillaException(
            Code.INVALID, at + " redirects to " + next + ", which is not encrypted", "");
      }
      at = next;
    }
    throw new FlotillaException(
        Code.UNAVAILABLE, address + " redirects more than " + REDIRECTS + " times", "");
  }

  private static void refuse(HttpResponse<InputStream> response, URI address) {
    int status = response.statusCode();
    if (status / 100 == 2) {
      return;
    }
    String said = address + " answered with status " + status;
    switch (status) {
      case 401, 403 ->
          throw new FlotillaException(
              Code.UNAUTHENTICATED,
              said,
              "If it needs a token, start the node with HF_TOKEN set, and accept the model's terms"
                  + " on its page.");
      case 404, 410 -> throw new FlotillaException(Code.NOT_FOUND, said, "Check the address.");
      default -> {
        FlotillaException error = new FlotillaException(Code.UNAVAILABLE, said, "Try again later.");
        if (status == 408 || status == 429 || status >= 500) {
          throw new Unsteady(error);
        }
        throw error;
      }
    }
  }

  private static FlotillaException changed(Wanted wanted) {
    return new FlotillaException(
        Code.UNAVAILABLE, wanted.address() + " is another file than it was", "Try again.");
  }

  private static FlotillaException broke(URI address, IOException e) {
    return new FlotillaException(
        Code.UNAVAILABLE,
        "cannot fetch "
            + address
            + ": "
            + (e.getMessage() == null ? "no connection" : e.getMessage()),
        "Check the network, then try again; a download goes on where it stopped.",
        e);
  }

  private static FlotillaException storage(Path file, IOException e) {
    return new FlotillaException(
        Code.STORAGE,
        "cannot write " + file + ": " + e.getMessage(),
        NodeFiles.isDiskFull(e)
            ? "Free disk space, then try again; it goes on where it stopped."
            : "Check the disk and its permissions.",
        e);
  }

  private static FlotillaException interrupted(InterruptedException e) {
    Thread.currentThread().interrupt();
    return new FlotillaException(Code.UNAVAILABLE, "the download was stopped", "", e);
  }

  private static void pause(long ms) {
    try {
      Thread.sleep(ms);
    } catch (InterruptedException e) {
      throw interrupted(e);
    }
  }

  private static void close(HttpResponse<InputStream> response) {
    try {
      response.body().close();
    } catch (IOException e) {
      // It is not read further anyway.
    }
  }

  private static long partBytes(Path file) {
    try {
      return Files.exists(part(file)) ? Files.size(part(file)) : 0;
    } catch (IOException e) {
      throw storage(file, e);
    }
  }

  private static Path part(Path file) {
    return file.resolveSibling(file.getFileName() + ".part");
  }

  private static Path tag(Path file) {
    return file.resolveSibling(file.getFileName() + ".tag");
  }

  /** What may be better at the next try. */
  private static final class Unsteady extends RuntimeException {
    private static final long serialVersionUID = 1L;
    final transient FlotillaException error;

    Unsteady(FlotillaException error) {
      super(error.getMessage(), error, false, false);
      this.error = error;
    }
  }
}
