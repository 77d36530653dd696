package dev.flotilla.bench;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import dev.flotilla.model.GgufFile;
import dev.flotilla.text.Grammar;
import dev.flotilla.text.JsonSchema;
import dev.flotilla.text.TokenConstraint;
import dev.flotilla.text.TokenConstraint.State;
import dev.flotilla.text.TokenMask;
import dev.flotilla.text.TokenTrie;
import dev.flotilla.text.Tokenizer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import java.util.concurrent.Callable;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;

/**
 * What holding answers to a grammar costs: its compilation, and the mask of a token, made (cold)
 * and remembered, at places of a JSON answer.
 */
@Command(
    name = "grammar",
    description = "Milliseconds of a grammar's masks, cold and remembered.",
    mixinStandardHelpOptions = true)
final class GrammarBench implements Callable<Integer> {

  private static final String SCHEMA =
      """
      {"type": "object", "properties": {
         "name": {"type": "string"}, "note": {"type": "string", "maxLength": 200},
         "age": {"type": "integer", "minimum": 0, "maximum": 150},
         "kind": {"enum": ["cat", "dog", "horse"]},
         "tags": {"type": "array", "items": {"type": "string"}}},
       "required": ["name", "note", "age", "kind", "tags"], "additionalProperties": false}
      """;

  private static final List<String> PLACES =
      List.of(
          "",
          "{",
          "{\"name\":",
          "{\"name\":\"Al",
          "{\"name\":\"Al\",",
          "{\"name\":\"Al\",\"note\":\"on ",
          "{\"name\":\"Al\",\"note\":\"on \",\"age\":1",
          "{\"name\":\"Al\",\"note\":\"on \",\"age\":1,\"kind\":\"",
          "{\"name\":\"Al\",\"note\":\"on \",\"age\":1,\"kind\":\"cat\",\"tags\":[\"a");

  private static final List<String> FREE_PLACES =
      List.of("{", "{\"a", "{\"a\":", "{\"a\":[{\"b\":\"x", "{\"a\":[[[[12");

  @Option(names = "--model", description = "A GGUF file whose vocabulary to take.")
  private Optional<Path> model = Optional.empty();

  @Option(
      names = "--tokens",
      defaultValue = "150000",
      description = "Size of a made-up vocabulary, without --model; ${DEFAULT-VALUE}.")
  private int tokens;

  @Option(names = "--seed", defaultValue = "1", description = "Of that; ${DEFAULT-VALUE}.")
  private long seed;

  @Option(
      names = "--rounds",
      defaultValue = "30",
      description = "The last third counts; ${DEFAULT-VALUE}.")
  private int rounds;

  @Override
  public Integer call() throws Exception {
    long begin = System.nanoTime();
    TokenTrie vocabulary = vocabulary();
    System.out.printf(
        "vocabulary of %d tokens: %.0f ms%n",
        vocabulary.vocabularySize(), (System.nanoTime() - begin) / 1e6);
    JsonNode schema = Json.MAPPER.readTree(SCHEMA);
    double[] compilation = new double[rounds];
    Grammar grammar = JsonSchema.grammar(schema);
    for (int round = 0; round < rounds; round++) {
      long start = System.nanoTime();
      grammar = JsonSchema.grammar(schema);
      compilation[round] = (System.nanoTime() - start) / 1e6;
    }
    System.out.printf("schema to grammar: %.2f ms%n", median(compilation));
    System.out.println("cold ms  again ms  allowed  behind");
    for (String place : PLACES) {
      measure(grammar, vocabulary, place);
    }
    System.out.println("any object:");
    for (String place : FREE_PLACES) {
      measure(JsonSchema.anyObject(), vocabulary, place);
    }
    return 0;
  }

  private void measure(Grammar grammar, TokenTrie vocabulary, String place) {
    double[] cold = new double[rounds];
    double[] again = new double[rounds];
    int allowed = 0;
    for (int round = 0; round < rounds; round++) {
      // Nothing is remembered by a new one.
      TokenConstraint constraint =
          new TokenConstraint(grammar, vocabulary, vocabulary.vocabularySize() - 1);
      State state = constraint.start();
      for (byte b : place.getBytes(StandardCharsets.UTF_8)) {
        state = constraint.after(state, idOf[b & 0xFF]);
      }
      long start = System.nanoTime();
      TokenMask mask = constraint.allowed(state);
      long made = System.nanoTime();
      TokenMask same = constraint.allowed(state);
      again[round] = (System.nanoTime() - made) / 1e6;
      cold[round] = (made - start) / 1e6;
      allowed = mask.equals(same) ? mask.count() : -1;
    }
    System.out.printf("%7.2f  %8.4f  %7d  %s%n", median(cold), median(again), allowed, place);
  }

  private double median(double[] values) {
    double[] last = Arrays.copyOfRange(values, rounds * 2 / 3, rounds);
    Arrays.sort(last);
    return last[last.length / 2];
  }

  /** The ids of the tokens of one byte each. */
  private final int[] idOf = new int[256];

  private TokenTrie vocabulary() throws Exception {
    if (model.isPresent()) {
      try (GgufFile file = GgufFile.open(model.get());
          Tokenizer tokenizer =
              Tokenizer.fromGguf(file.header().metadata(), model.get().toString())) {
        TokenTrie trie = Tokenizer.tokenTrie(file.header().metadata(), model.get().toString());
        for (int b = 0; b < 128; b++) {
          int[] ids = tokenizer.encode(Character.toString(b));
          idOf[b] = ids[ids.length - 1];
        }
        return trie;
      }
    }
    SplittableRandom random = new SplittableRandom(seed);
    List<byte[]> made = new ArrayList<>();
    for (int b = 0; b < 256; b++) {
      idOf[b] = b;
      made.add(new byte[] {(byte) b});
    }
    // Words of syllables, with and without a space or a sign before them, some not of ASCII.
    String[] syllables = new String[400];
    for (int i = 0; i < syllables.length; i++) {
      int letters = i % 5 == 0 ? 0x430 : i % 17 == 0 ? 0x4E00 : 'a';
      syllables[i] =
          Character.toString(letters + random.nextInt(26))
              + Character.toString(letters + random.nextInt(26));
    }
    String[] beginnings = {"", "", " ", " ", " ", "\"", "\n", "(", ", ", ".", "{\"", "_"};
    String[] ends = {"", "", "", "", "", "", "\"", "\":", ",", ")"};
    while (made.size() < tokens - 1) {
      StringBuilder word = new StringBuilder(beginnings[random.nextInt(beginnings.length)]);
      for (int parts = 1 + random.nextInt(4); parts > 0; parts--) {
        word.append(syllables[random.nextInt(syllables.length)]);
      }
      made.add(
          word.append(ends[random.nextInt(ends.length)])
              .toString()
              .getBytes(StandardCharsets.UTF_8));
    }
    made.add(new byte[0]);
    return new TokenTrie(made);
  }
}
