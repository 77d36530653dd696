package dev.flotilla.text;

import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import java.nio.file.Path;
import java.util.List;

/**
 * What BPE training learned: the special tokens, then the 256 bytes, then one token per merge, in
 * the order of their ids.
 *
 * @param specialTokens ids 0 to {@code specialTokens.size() - 1}; never produced from plain text
 * @param tokens every token in the order of ids, spelled in the alphabet of byte-level BPE (special
 *     tokens as they are)
 * @param merges the pairs to join, most urgent first
 */
public record BpeVocabulary(List<String> specialTokens, List<String> tokens, List<Merge> merges) {

  /** Two tokens that become one. */
  public record Merge(String left, String right) {}

  public BpeVocabulary {
    specialTokens = List.copyOf(specialTokens);
    tokens = List.copyOf(tokens);
    merges = List.copyOf(merges);
  }

  /** The vocabulary as a Hugging Face {@code tokenizer.json}. */
  public String tokenizerJson() {
    ObjectNode root = Json.MAPPER.createObjectNode();
    root.put("version", "1.0");
    root.putNull("truncation");
    root.putNull("padding");
    ArrayNode added = root.putArray("added_tokens");
    for (int id = 0; id < specialTokens.size(); id++) {
      TokenizerJson.addToken(added, id, specialTokens.get(id), true);
    }
    root.putNull("normalizer");
    root.set("pre_tokenizer", TokenizerJson.byteLevel(true));
    root.putNull("post_processor");
    root.set("decoder", TokenizerJson.byteLevel(true));
    ObjectNode model = TokenizerJson.bpeModel();
    ObjectNode vocabulary = model.putObject("vocab");
    for (int id = 0; id < tokens.size(); id++) {
      vocabulary.put(tokens.get(id), id);
    }
    ArrayNode pairs = model.putArray("merges");
    for (Merge merge : merges) {
      pairs.addArray().add(merge.left()).add(merge.right());
    }
    root.set("model", model);
    return root.toPrettyString();
  }

  /**
   * Writes {@link #tokenizerJson} to a file, whole or not at all.
   *
   * @throws dev.flotilla.FlotillaException {@code STORAGE} if the disk is full or fails
   */
  public void write(Path file) {
    TextFiles.write(file, tokenizerJson());
  }
}
