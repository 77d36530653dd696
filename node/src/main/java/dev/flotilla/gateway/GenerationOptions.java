package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.serve.Priority;
import dev.flotilla.serve.SamplingParameters;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.LongSupplier;
import java.util.function.Predicate;

/**
 * What both OpenAI endpoints let a client choose.
 *
 * @param sampling with the seed of the first choice
 * @param maxTokens what the client asked for; empty where it did not
 * @param stops texts that end the answer
 * @param choices how many answers to give
 * @param grammar that each answer is held to, in GBNF
 * @param priority how much it may press ahead of others
 * @param ignoreEnd go on past the model's own end tokens, until another limit is reached
 */
record GenerationOptions(
    SamplingParameters sampling,
    Optional<Integer> maxTokens,
    List<String> stops,
    int choices,
    Optional<String> grammar,
    Priority priority,
    boolean ignoreEnd,
    boolean stream,
    boolean includeUsage) {

  private static final int STOPS_MAX = 4;
  private static final int STOP_CHARACTERS_MAX = 1000;
  private static final int CHOICES_MAX = 16;

  /**
   * Fields that would change the answer and are not implemented, with the values that change
   * nothing.
   */
  private static final Map<String, Predicate<JsonNode>> UNSUPPORTED =
      Map.ofEntries(
          Map.entry("tools", JsonNode::isEmpty),
          Map.entry("tool_choice", GenerationOptions::isAutoOrNone),
          Map.entry("functions", JsonNode::isEmpty),
          Map.entry("function_call", GenerationOptions::isAutoOrNone),
          Map.entry("logprobs", v -> v.isBoolean() && !v.booleanValue()),
          Map.entry("top_logprobs", v -> false),
          Map.entry("prompt_logprobs", v -> false),
          Map.entry("logit_bias", v -> v.isObject() && v.isEmpty()),
          Map.entry("frequency_penalty", v -> isNumber(v, 0)),
          Map.entry("presence_penalty", v -> isNumber(v, 0)),
          Map.entry("repetition_penalty", v -> isNumber(v, 1)),
          Map.entry("repeat_penalty", v -> isNumber(v, 1)),
          Map.entry("min_p", v -> isNumber(v, 0)),
          Map.entry("typical_p", v -> isNumber(v, 1)),
          Map.entry("min_tokens", v -> isNumber(v, 0)),
          Map.entry("stop_token_ids", JsonNode::isEmpty),
          Map.entry("best_of", v -> isNumber(v, 1)),
          Map.entry("use_beam_search", v -> v.isBoolean() && !v.booleanValue()),
          Map.entry("suffix", v -> v.isTextual() && v.textValue().isEmpty()),
          Map.entry("audio", v -> false),
          Map.entry("modalities", v -> v.size() == 1 && v.path(0).asText().equals("text")),
          Map.entry("prediction", v -> false),
          Map.entry("web_search_options", v -> false),
          Map.entry("structured_outputs", v -> false),
          Map.entry("guided_json", v -> false),
          Map.entry("guided_regex", v -> false),
          Map.entry("guided_choice", v -> false),
          Map.entry("chat_template", v -> false),
          Map.entry("continue_final_message", v -> v.isBoolean() && !v.booleanValue()));

  private static boolean isAutoOrNone(JsonNode value) {
    return value.isTextual()
        && (value.textValue().equals("auto") || value.textValue().equals("none"));
  }

  private static boolean isNumber(JsonNode value, double number) {
    return value.isNumber() && value.doubleValue() == number;
  }

  /**
   * Reads and checks the fields.
   *
   * @param randomSeed for a client that brings none
   */
  static GenerationOptions read(Fields fields, ServedModel model, LongSupplier randomSeed) {
    refuseUnsupported(fields);
    double temperature = fields.number("temperature", 0, 2).orElse(model.sampling().temperature());
    double topP = fields.number("top_p", 0, 1).orElse(model.sampling().topP());
    int topK =
        fields.integer("top_k", model.sampling().topK(), 0, model.view().config().vocabularySize());
    long seed =
        fields.integer("seed", Long.MIN_VALUE, Long.MAX_VALUE).orElseGet(randomSeed::getAsLong);
    if (topP == 0) {
      // The smallest set that reaches nothing is still the one most likely token.
      topP = 1;
      topK = 1;
    }
    boolean stream = fields.flag("stream", false);
    Optional<String> grammar = AnswerGrammar.read(fields);
    boolean ignoreEnd = fields.flag("ignore_eos", false);
    if (ignoreEnd && grammar.isPresent()) {
      throw ApiError.invalid(
          "ignore_eos", "ignore_eos cannot go with a grammar: its texts have an end.");
    }
    return new GenerationOptions(
        new SamplingParameters((float) temperature, (float) topP, topK, seed),
        maxTokens(fields, model),
        stops(fields),
        fields.integer("n", 1, 1, CHOICES_MAX),
        grammar,
        priority(fields),
        ignoreEnd,
        stream,
        includeUsage(fields, stream));
  }

  private static void refuseUnsupported(Fields fields) {
    UNSUPPORTED.forEach(
        (name, harmless) ->
            fields
                .node(name)
                .filter(harmless.negate())
                .ifPresent(
                    value -> {
                      throw ApiError.unsupported(
                          name, name + " is not supported with this value; leave it out.");
                    }));
  }

  /** How urgent a request says it is. */
  static Priority priority(Fields fields) {
    String label = fields.text("priority").orElse(Priority.NORMAL.label());
    return Priority.of(label)
        .orElseThrow(() -> ApiError.invalid("priority", "priority must be high, normal or low."));
  }

  private static Optional<Integer> maxTokens(Fields fields, ServedModel model) {
    Optional<Long> completion = fields.integer("max_completion_tokens", 1, model.contextLength());
    Optional<Long> older = fields.integer("max_tokens", 1, model.contextLength());
    if (completion.isPresent() && older.isPresent() && !completion.equals(older)) {
      throw ApiError.invalid(
          "max_tokens", "max_tokens and max_completion_tokens differ; send one of them.");
    }
    return completion.or(() -> older).map(Long::intValue);
  }

  private static List<String> stops(Fields fields) {
    Optional<JsonNode> stop = fields.node("stop");
    if (stop.isEmpty()) {
      return List.of();
    }
    List<JsonNode> values = new ArrayList<>();
    if (stop.get().isArray()) {
      stop.get().forEach(values::add);
    } else {
      values.add(stop.get());
    }
    boolean wellFormed =
        values.size() <= STOPS_MAX
            && values.stream()
                .allMatch(
                    v ->
                        v.isTextual()
                            && !v.textValue().isEmpty()
                            && v.textValue().length() <= STOP_CHARACTERS_MAX);
    if (!wellFormed) {
      throw ApiError.invalid(
          "stop",
          "stop must be a string or up to "
              + STOPS_MAX
              + " strings, each of 1 to "
              + STOP_CHARACTERS_MAX
              + " characters.");
    }
    return values.stream().map(JsonNode::textValue).toList();
  }

  private static boolean includeUsage(Fields fields, boolean stream) {
    Optional<Fields> options = fields.object("stream_options");
    if (options.isPresent() && !stream) {
      throw ApiError.invalid("stream_options", "stream_options needs stream to be true.");
    }
    return options.map(o -> o.flag("include_usage", false)).orElse(false);
  }

  /** The sampling of one choice: the first has the seed itself, the others one derived from it. */
  SamplingParameters samplingOf(int choice) {
    return choice == 0
        ? sampling
        : new SamplingParameters(
            sampling.temperature(),
            sampling.topP(),
            sampling.topK(),
            mix(sampling.seed() + choice * 0x9E3779B97F4A7C15L));
  }

  /** The finaliser of SplitMix64, Steele, Lea and Flood 2014. */
  private static long mix(long z) {
    z = (z ^ (z >>> 30)) * 0xBF58476D1CE4E5B9L;
    z = (z ^ (z >>> 27)) * 0x94D049BB133111EBL;
    return z ^ (z >>> 31);
  }
}
