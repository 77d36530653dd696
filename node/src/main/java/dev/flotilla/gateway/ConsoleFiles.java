package dev.flotilla.gateway;

import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.zip.CRC32;

/** The console's few files, from the class path, kept in memory. */
final class ConsoleFiles {

  /**
   * Everything comes from this node, nothing is inline: a page that shows text from models must not
   * run any of it.
   */
  private static final String CONTENT_SECURITY_POLICY =
      "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
          + " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

  private record Asset(String contentType, byte[] bytes, String tag) {}

  private final Map<String, Asset> byPath = new LinkedHashMap<>();

  ConsoleFiles() {
    byPath.put("/", load("console.html", "text/html; charset=utf-8"));
    byPath.put("/console.css", load("console.css", "text/css; charset=utf-8"));
    byPath.put("/console.js", load("console.js", "text/javascript; charset=utf-8"));
    byPath.put("/favicon.svg", load("favicon.svg", "image/svg+xml"));
  }

  private static Asset load(String name, String contentType) {
    try (InputStream in = ConsoleFiles.class.getResourceAsStream(name)) {
      if (in == null) {
        throw new IllegalStateException("no resource " + name);
      }
      byte[] bytes = in.readAllBytes();
      CRC32 crc = new CRC32();
      crc.update(bytes);
      return new Asset(contentType, bytes, '"' + HexFormat.of().toHexDigits(crc.getValue()) + '"');
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  Set<String> paths() {
    return byPath.keySet();
  }

  void send(Exchange exchange) {
    Asset asset = byPath.get(exchange.path());
    if (asset == null) {
      throw ApiError.of(404, "not_found", "There is nothing at this path.");
    }
    exchange.putHeader("Content-Security-Policy", CONTENT_SECURITY_POLICY);
    exchange.putHeader("Referrer-Policy", "no-referrer");
    exchange.putHeader("Cross-Origin-Opener-Policy", "same-origin");
    exchange.putHeader("Cache-Control", "no-cache");
    exchange.putHeader("ETag", asset.tag());
    if (exchange.header("If-None-Match").filter(asset.tag()::equals).isPresent()) {
      exchange.send(304, asset.contentType(), new byte[0]);
    } else {
      exchange.send(200, asset.contentType(), asset.bytes());
    }
  }
}
