package dev.flotilla.gateway;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * The metadata of a model whose tokens are the 256 bytes, each with its own value as id, and one
 * that ends.
 */
final class TestText {

  static final int VOCABULARY = 257;
  static final int END = 256;

  private TestText() {}

  static Map<String, Object> metadata() {
    List<String> tokens = new ArrayList<>();
    List<Integer> types = new ArrayList<>();
    int stoodIn = 256;
    for (int b = 0; b < 256; b++) {
      // GPT-2's alphabet: bytes that print stand for themselves, the others for later characters.
      boolean prints = (b >= 33 && b <= 126) || (b >= 161 && b != 173);
      tokens.add(Character.toString(prints ? b : stoodIn++));
      types.add(1);
    }
    tokens.add("<|end|>");
    types.add(3);
    return Map.of(
        "tokenizer.ggml.model",
        "gpt2",
        "tokenizer.ggml.tokens",
        tokens,
        "tokenizer.ggml.token_type",
        types,
        "tokenizer.ggml.merges",
        List.of(),
        "tokenizer.ggml.eos_token_id",
        END,
        "tokenizer.chat_template",
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}");
  }

  static int[] tokens(String text) {
    byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
    int[] tokens = new int[bytes.length];
    for (int i = 0; i < bytes.length; i++) {
      tokens[i] = bytes[i] & 0xff;
    }
    return tokens;
  }
}
