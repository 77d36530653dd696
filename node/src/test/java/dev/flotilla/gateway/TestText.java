package dev.flotilla.gateway;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharsetDecoder;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.List;

/** One token per byte of UTF-8, and one that ends. */
final class TestText implements TextCodec {

  static final int VOCABULARY = 257;
  static final int END = 256;

  static int[] tokens(String text) {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    int[] tokens = new int[bytes.length];
    for (int i = 0; i < bytes.length; i++) {
      tokens[i] = bytes[i] & 0xff;
    }
    return tokens;
  }

  @Override
  public int[] encode(String text) {
    return tokens(text);
  }

  @Override
  public int[] encodeChat(List<Message> messages) {
    StringBuilder text = new StringBuilder();
    messages.forEach(m -> text.append(m.role()).append(": ").append(m.content()).append('\n'));
    return tokens(text.toString());
  }

  @Override
  public int[] endTokens() {
    return new int[] {END};
  }

  @Override
  public Decoder decoder() {
    CharsetDecoder utf8 =
        StandardCharsets.UTF_8.newDecoder().onMalformedInput(CodingErrorAction.REPLACE);
    ByteArrayOutputStream held = new ByteArrayOutputStream();
    return new Decoder() {
      @Override
      public String push(int token) {
        held.write(token);
        ByteBuffer in = ByteBuffer.wrap(held.toByteArray());
        CharBuffer out = CharBuffer.allocate(8);
        utf8.reset().decode(in, out, false);
        held.reset();
        while (in.hasRemaining()) {
          held.write(in.get());
        }
        return out.flip().toString();
      }

      @Override
      public String end() {
        return held.size() == 0 ? "" : "\ufffd";
      }
    };
  }
}
