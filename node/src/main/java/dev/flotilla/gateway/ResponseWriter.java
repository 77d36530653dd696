package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;

/**
 * Writes the events of a response, numbered from 0, from where the client is on. Which events there
 * are follows from the tokens alone, so a number means the same event on any node.
 */
final class ResponseWriter implements AnswerWriter {

  /** Events beside those with text: four before them, four behind. */
  static final int EVENTS_BESIDE_TEXT = 8;

  private final EventStream out;
  private final ResponseForm form;
  private final AnswerFormat.Head head;
  private final int had;
  private final StringBuilder text = new StringBuilder();
  private String finishReason = "";
  private int next;

  /**
   * @param had the number of the last event that the client has; -1 for none
   */
  ResponseWriter(EventStream out, ResponseForm form, AnswerFormat.Head head, int had) {
    this.out = out;
    this.form = form;
    this.head = head;
    this.had = had;
  }

  /** 400: there is no such event. */
  static ApiError noSuchEvent(int had) {
    return ApiError.invalid(
        "starting_after",
        "starting_after is the sequence_number of the last event that came, and this response has"
            + " no event "
            + had
            + ".");
  }

  private static ObjectNode event() {
    return Json.MAPPER.createObjectNode();
  }

  private ObjectNode ofItem() {
    return event().put("output_index", 0);
  }

  private ObjectNode ofPart() {
    return ofItem().put("item_id", form.messageId()).put("content_index", 0);
  }

  private void write(String type, ObjectNode event) {
    int number = next++;
    if (number > had) {
      out.event(numbered(type, number, event), "event: " + type);
    }
  }

  private static ObjectNode numbered(String type, int number, ObjectNode event) {
    ObjectNode numbered = event().put("type", type).put("sequence_number", number);
    numbered.setAll(event);
    return numbered;
  }

  @Override
  public void open(int choice) {
    write("response.created", event().set("response", form.inProgress(head)));
    write("response.in_progress", event().set("response", form.inProgress(head)));
    write("response.output_item.added", ofItem().set("item", form.emptyMessage()));
    write("response.content_part.added", ofPart().set("part", ResponseForm.part("")));
  }

  @Override
  public void text(int choice, String piece) {
    if (!piece.isEmpty()) {
      text.append(piece);
      ObjectNode delta = ofPart().put("delta", piece);
      delta.putArray("logprobs");
      write("response.output_text.delta", delta);
    }
  }

  @Override
  public void end(int choice, String rest, String reason) {
    text(choice, rest);
    finishReason = reason;
    String whole = text.toString();
    ObjectNode done = ofPart().put("text", whole);
    done.putArray("logprobs");
    write("response.output_text.done", done);
    write("response.content_part.done", ofPart().set("part", ResponseForm.part(whole)));
    write(
        "response.output_item.done",
        ofItem().set("item", form.message(ResponseForm.status(reason), whole)));
    if (had > next) {
      throw noSuchEvent(had);
    }
  }

  @Override
  public void close(int promptTokens, int tokens) {
    write(
        "response." + ResponseForm.status(finishReason),
        event()
            .set(
                "response",
                form.complete(head, text.toString(), finishReason, promptTokens, tokens)));
  }

  @Override
  public void failed(ApiError error) {
    // Not an event of the response, which can be gone on with: it has no number of its own.
    ObjectNode event = error.body();
    ObjectNode said = (ObjectNode) event.get("error");
    event.put("message", said.path("message").asText());
    event.set("code", said.get("code"));
    event.set("param", said.get("param"));
    out.event(numbered("error", Math.max(had, next - 1), event), "event: error");
  }
}
