package dev.flotilla.text;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;

/** The parts of a Hugging Face {@code tokenizer.json} that we write. */
final class TokenizerJson {

  private TokenizerJson() {}

  static void addToken(ArrayNode added, int id, String content, boolean special) {
    added
        .addObject()
        .put("id", id)
        .put("content", content)
        .put("single_word", false)
        .put("lstrip", false)
        .put("rstrip", false)
        .put("normalized", false)
        .put("special", special);
  }

  /**
   * The pre-tokenizer, and the decoder, of byte-level BPE; with GPT-2's regular expression or not.
   */
  static ObjectNode byteLevel(boolean gpt2Regex) {
    return Json.MAPPER
        .createObjectNode()
        .put("type", "ByteLevel")
        .put("add_prefix_space", false)
        .put("trim_offsets", true)
        .put("use_regex", gpt2Regex);
  }

  /** A BPE model without its {@code vocab} and {@code merges}. */
  static ObjectNode bpeModel() {
    return Json.MAPPER
        .createObjectNode()
        .put("type", "BPE")
        .putNull("dropout")
        .putNull("unk_token")
        .putNull("continuing_subword_prefix")
        .putNull("end_of_word_suffix")
        .put("fuse_unk", false)
        .put("byte_fallback", false)
        .put("ignore_merges", false);
  }
}
