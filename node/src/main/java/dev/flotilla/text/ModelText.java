package dev.flotilla.text;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.InstantSource;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.IntConsumer;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * How one model reads and writes: its tokenizer, its chat template and the tokens that begin and
 * end its texts. Safe on all threads.
 */
public final class ModelText implements AutoCloseable {

  /** Tokens that end a turn wherever they are special, whatever a file says of them. */
  private static final List<String> END_OF_TURN =
      List.of(
          "<|eot_id|>",
          "<|eom_id|>",
          "<|im_end|>",
          "<|end|>",
          "<end_of_turn>",
          "<turn|>",
          "<|endoftext|>",
          "<|end_of_text|>",
          "<|end_of_turn|>",
          "<end_of_utterance>",
          "<|return|>",
          "<|call|>");

  private final Tokenizer tokenizer;
  private final Optional<String> templateSource;
  private final Optional<ChatTemplate> template;
  private final Map<String, String> tokenTexts;
  private final OptionalInt beginning;
  private final boolean addsBeginning;
  private final int[] endIds;
  private final InstantSource clock;

  /** What a file says of its text, before it is checked. */
  private record Settings(
      Optional<String> template,
      Map<String, String> tokenTexts,
      OptionalInt beginning,
      boolean addsBeginning,
      Set<Integer> ends) {}

  private ModelText(Tokenizer tokenizer, Settings settings, InstantSource clock) {
    this.tokenizer = tokenizer;
    this.templateSource = settings.template;
    this.tokenTexts = settings.tokenTexts;
    this.beginning = settings.beginning;
    this.addsBeginning = settings.addsBeginning && settings.beginning.isPresent();
    this.clock = clock;
    Set<Integer> ends = new TreeSet<>(settings.ends);
    END_OF_TURN.forEach(text -> tokenizer.specialId(text).ifPresent(ends::add));
    this.endIds = ends.stream().mapToInt(Integer::intValue).toArray();
    this.template = settings.template.map(ChatTemplate::parse);
  }

  /**
   * From the metadata of a GGUF file: {@code tokenizer.ggml.*} and {@code tokenizer.chat_template}.
   * Arrays may be Java arrays or lists.
   *
   * @param source what to call the file in messages
   * @param clock for templates that state the date
   * @throws FlotillaException {@code BAD_FILE} if the tokenizer is malformed or of an unknown kind,
   *     {@code INVALID} if the chat template cannot be parsed
   */
  public static ModelText fromGguf(
      Map<String, Object> metadata, String source, InstantSource clock) {
    Tokenizer tokenizer = Tokenizer.fromGguf(metadata, source);
    return closingOnError(
        tokenizer,
        () -> new ModelText(tokenizer, gguf(metadata, tokenizer.vocabularySize()), clock));
  }

  private static Settings gguf(Map<String, Object> metadata, int vocabularySize) {
    List<String> tokens = GgufMetadata.strings(metadata, "tokenizer.ggml.tokens");
    boolean sentencePiece =
        GgufMetadata.string(metadata, "tokenizer.ggml.model").orElse("").equals("llama");
    OptionalInt beginning = GgufMetadata.id(metadata, "tokenizer.ggml.bos_token_id");
    OptionalInt end = GgufMetadata.id(metadata, "tokenizer.ggml.eos_token_id");
    if (sentencePiece) {
      beginning = beginning.isPresent() ? beginning : OptionalInt.of(1);
      end = end.isPresent() ? end : OptionalInt.of(2);
    }
    boolean llama3 =
        Set.of("llama-bpe", "llama3", "llama-v3")
            .contains(GgufMetadata.string(metadata, "tokenizer.ggml.pre").orElse(""));
    Set<Integer> ends = new TreeSet<>();
    IntConsumer add = ends::add;
    end.ifPresent(add);
    GgufMetadata.id(metadata, "tokenizer.ggml.eot_token_id").ifPresent(add);
    GgufMetadata.id(metadata, "tokenizer.ggml.eom_token_id").ifPresent(add);
    ends.removeIf(id -> id < 0 || id >= vocabularySize);
    Map<String, String> texts = new LinkedHashMap<>();
    name(texts, "bos_token", tokens, beginning);
    name(texts, "eos_token", tokens, end);
    name(texts, "unk_token", tokens, GgufMetadata.id(metadata, "tokenizer.ggml.unknown_token_id"));
    name(texts, "pad_token", tokens, GgufMetadata.id(metadata, "tokenizer.ggml.padding_token_id"));
    return new Settings(
        GgufMetadata.string(metadata, "tokenizer.chat_template"),
        texts,
        beginning,
        GgufMetadata.flag(metadata, "tokenizer.ggml.add_bos_token").orElse(sentencePiece || llama3),
        ends);
  }

  private static void name(
      Map<String, String> texts, String name, List<String> tokens, OptionalInt id) {
    if (id.isPresent() && id.getAsInt() < tokens.size()) {
      texts.put(name, tokens.get(id.getAsInt()));
    }
  }

  /**
   * From a Hugging Face folder: {@code tokenizer.json}, and where present {@code
   * tokenizer_config.json}, {@code generation_config.json}, {@code config.json} and {@code
   * chat_template.jinja}.
   *
   * @param clock for templates that state the date
   * @throws FlotillaException {@code BAD_FILE} if a file is missing or malformed, {@code INVALID}
   *     if the chat template cannot be parsed
   */
  public static ModelText fromFolder(Path folder, InstantSource clock) {
    Tokenizer tokenizer = Tokenizer.fromFile(folder.resolve("tokenizer.json"));
    return closingOnError(
        tokenizer, () -> new ModelText(tokenizer, folder(folder, tokenizer), clock));
  }

  private static Settings folder(Path folder, Tokenizer tokenizer) {
    JsonNode config = json(folder.resolve("tokenizer_config.json"));
    Map<String, String> texts = new LinkedHashMap<>();
    for (String name : List.of("bos_token", "eos_token", "unk_token", "pad_token")) {
      JsonNode token = config.path(name);
      String text = token.isObject() ? token.path("content").asText("") : token.asText("");
      if (!text.isEmpty() && !token.isNull()) {
        texts.put(name, text);
      }
    }
    OptionalInt beginning = id(tokenizer, texts.get("bos_token"));
    Set<Integer> ends = new TreeSet<>();
    id(tokenizer, texts.get("eos_token")).ifPresent(ends::add);
    for (String file : List.of("generation_config.json", "config.json")) {
      JsonNode end = json(folder.resolve(file)).path("eos_token_id");
      for (JsonNode id : end.isArray() ? end : List.of(end)) {
        if (id.canConvertToInt() && id.asInt() >= 0 && id.asInt() < tokenizer.vocabularySize()) {
          ends.add(id.asInt());
        }
      }
    }
    // The file's post-processor knows best; the flag speaks where there is none.
    int[] sample = tokenizer.encodeAsFile("a");
    boolean addsBeginning =
        (sample.length > 0 && beginning.isPresent() && sample[0] == beginning.getAsInt())
            || config.path("add_bos_token").asBoolean(false);
    return new Settings(template(folder, config), texts, beginning, addsBeginning, ends);
  }

  private static Optional<String> template(Path folder, JsonNode config) {
    Path file = folder.resolve("chat_template.jinja");
    if (Files.exists(file)) {
      return Optional.of(TextFiles.read(file));
    }
    JsonNode template = config.path("chat_template");
    if (template.isTextual()) {
      return Optional.of(template.asText());
    }
    for (JsonNode named : template) {
      if (named.path("name").asText().equals("default")) {
        return Optional.of(named.path("template").asText());
      }
    }
    return Optional.empty();
  }

  private static OptionalInt id(Tokenizer tokenizer, @Nullable String text) {
    return text == null ? OptionalInt.empty() : tokenizer.specialId(text);
  }

  private static JsonNode json(Path file) {
    if (!Files.exists(file)) {
      return Json.MAPPER.createObjectNode();
    }
    try {
      return Json.MAPPER.readTree(TextFiles.read(file));
    } catch (JsonProcessingException e) {
      throw new FlotillaException(
          Code.BAD_FILE, file + " is malformed: " + e.getOriginalMessage(), "Fetch it again.", e);
    }
  }

  private static ModelText closingOnError(
      Tokenizer tokenizer, java.util.function.Supplier<ModelText> constructor) {
    try {
      return constructor.get();
    } catch (RuntimeException e) {
      tokenizer.close();
      throw e;
    }
  }

  /** The tokenizer, which closes with this. */
  public Tokenizer tokenizer() {
    return tokenizer;
  }

  /** The source of the chat template, if the model has one. */
  public Optional<String> chatTemplate() {
    return templateSource;
  }

  /** The token that begins a text. */
  public OptionalInt beginningId() {
    return beginning;
  }

  /** The tokens at which the model has finished: of text, of a message, of a turn. Ascending. */
  public int[] endIds() {
    return endIds.clone();
  }

  /** Encodes a text to be continued, with the beginning token if the model asks for it. */
  public int[] encode(String userText) {
    int[] ids = tokenizer.encode(userText);
    return addsBeginning
        ? IntStream.concat(IntStream.of(beginning.getAsInt()), IntStream.of(ids)).toArray()
        : ids;
  }

  /**
   * Encodes a conversation by the model's chat template. Special tokens count in what the template
   * writes, and are text in what the caller gives.
   *
   * @param messages each with {@code role}, {@code content} and whatever else the template reads
   * @param tools the functions that the model may call, as JSON schemas; none hides them
   * @param addGenerationPrompt whether to begin the assistant's answer
   * @param extra further variables of the template
   * @throws FlotillaException {@code INVALID} if the model has no chat template, or its template
   *     refuses the conversation or exceeds its bounds
   */
  public int[] render(
      List<? extends Map<String, ?>> messages,
      List<? extends Map<String, ?>> tools,
      boolean addGenerationPrompt,
      Map<String, ?> extra) {
    return tokenizer.encode(renderMarked(messages, tools, addGenerationPrompt, extra));
  }

  /** What {@link #render} encodes, as text with its provenance. */
  public List<Segment> renderSegments(
      List<? extends Map<String, ?>> messages,
      List<? extends Map<String, ?>> tools,
      boolean addGenerationPrompt,
      Map<String, ?> extra) {
    return renderMarked(messages, tools, addGenerationPrompt, extra).segments();
  }

  private MarkedText renderMarked(
      List<? extends Map<String, ?>> messages,
      List<? extends Map<String, ?>> tools,
      boolean addGenerationPrompt,
      Map<String, ?> extra) {
    ChatTemplate chat =
        template.orElseThrow(
            () ->
                new FlotillaException(
                    Code.INVALID,
                    "the model has no chat template",
                    "Send the text itself to /v1/completions, or give the model a template."));
    Map<String, @Nullable Object> variables = new HashMap<>(extra);
    variables.put("messages", messages);
    // Hugging Face passes None, not an absent variable, and templates ask for either.
    variables.put("tools", tools.isEmpty() ? null : tools);
    variables.put("add_generation_prompt", addGenerationPrompt);
    return chat.renderMarked(
        variables, tokenTexts, ZonedDateTime.ofInstant(clock.instant(), ZoneOffset.UTC));
  }

  /** Frees the tokenizer's native memory. */
  @Override
  public void close() {
    tokenizer.close();
  }
}
