package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.List;
import java.util.zip.DeflaterOutputStream;
import java.util.zip.InflaterInputStream;

/**
 * A complete response, with all that is needed to write its events again: without its model, which
 * may be gone by then.
 *
 * @param tenant nobody else finds it
 * @param pieces its text, as it was cut into events
 */
record StoredResponse(
    String tenant,
    ResponseForm form,
    AnswerFormat.Head head,
    List<String> pieces,
    String finishReason,
    int promptTokens,
    int tokens) {

  /** As JSON, deflated. */
  byte[] write() {
    ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    try (DeflaterOutputStream out = new DeflaterOutputStream(bytes)) {
      out.write(Json.write(this));
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    return bytes.toByteArray();
  }

  static StoredResponse read(byte[] bytes) {
    try (InflaterInputStream in = new InflaterInputStream(new ByteArrayInputStream(bytes))) {
      return Json.read(in.readAllBytes(), StoredResponse.class);
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  String text() {
    return String.join("", pieces);
  }

  ObjectNode object() {
    return form.complete(head, text(), finishReason, promptTokens, tokens);
  }

  /** Writes the events that came of it. */
  void write(ResponseWriter writer) {
    writer.open(0);
    pieces.forEach(piece -> writer.text(0, piece));
    writer.end(0, "", finishReason);
    writer.close(promptTokens, tokens);
  }
}
