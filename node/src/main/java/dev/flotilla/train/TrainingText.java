package dev.flotilla.train;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CoderResult;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;

/** Checks the text that a job is to train on. */
public final class TrainingText {

  /** The longest text that a job takes. */
  public static final int BYTES_MAX = 6 << 20;

  private TrainingText() {}

  /**
   * Decodes UTF-8 strictly; a byte order mark at the start is dropped.
   *
   * @param name what to call it in messages
   * @throws FlotillaException {@code INVALID} if it is empty or not UTF-8, with the offset of the
   *     first wrong byte; {@code TOO_LARGE} above {@link #BYTES_MAX}
   */
  public static String decode(byte[] bytes, String name) {
    if (bytes.length > BYTES_MAX) {
      throw new FlotillaException(
          Code.TOO_LARGE,
          name + " has " + bytes.length + " bytes, more than " + BYTES_MAX,
          "Train on a part of it.");
    }
    ByteBuffer in = ByteBuffer.wrap(bytes);
    CharBuffer out = CharBuffer.allocate(bytes.length);
    CoderResult result =
        StandardCharsets.UTF_8
            .newDecoder()
            .onMalformedInput(CodingErrorAction.REPORT)
            .onUnmappableCharacter(CodingErrorAction.REPORT)
            .decode(in, out, true);
    if (result.isError()) {
      throw new FlotillaException(
          Code.INVALID,
          "%s is not UTF-8: byte 0x%02x at offset %d"
              .formatted(name, bytes[in.position()] & 0xff, in.position()),
          "Convert it to UTF-8 first.");
    }
    String text = out.flip().toString();
    if (text.startsWith("\uFEFF")) {
      text = text.substring(1);
    }
    if (text.isBlank()) {
      throw new FlotillaException(
          Code.INVALID, name + " is empty", "Give a file with text to train on.");
    }
    return text;
  }
}
