package dev.flotilla.model;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.Json;
import dev.flotilla.tensor.WeightType;
import dev.flotilla.text.Tokenizer;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.Random;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Compares with programs that are not ours: llama.cpp on the GGUF files, transformers on the
 * folder. Runs where the environment variable {@code FLOTILLA_PEER_PYTHON} names a Python that has
 * {@code llama_cpp} and {@code numpy}, or {@code transformers} and {@code torch}; a folder of a
 * trained model can be given in {@code FLOTILLA_PEER_MODEL}.
 */
class PeerTest {

  private static final int GENERATED = 64;

  @TempDir Path temporary;
  private String python = "";
  private Path folder = Path.of("");

  private record Peer(String version, int[] tokens, int[] text, float[][] logits) {}

  @BeforeEach
  void findPeer() throws IOException {
    python = Objects.requireNonNullElse(System.getenv("FLOTILLA_PEER_PYTHON"), "");
    assumeTrue(!python.isEmpty(), "FLOTILLA_PEER_PYTHON names no Python with llama_cpp");
    String trained = System.getenv("FLOTILLA_PEER_MODEL");
    if (trained == null) {
      folder = temporary.resolve("hf");
      TestFolders.write(folder, true);
    } else {
      folder = Path.of(trained);
    }
  }

  /**
   * The tolerances cover that llama.cpp rounds activations to the type of the weights, and keys,
   * values and tables of attention to half precision. They are shares of the largest logit, for a
   * trained model's are larger than a random one's.
   */
  @ParameterizedTest
  @CsvSource({"F32, 0.002", "F16, 0.004", "Q8_0, 0.05"})
  void llamaCppAgreesOnTokensAndLogits(WeightType type, float tolerance)
      throws IOException, InterruptedException {
    assumeTrue(has("llama_cpp"), "no llama_cpp there");
    Path gguf = temporary.resolve("model.gguf");
    GgufConverter.convert(folder, gguf, "peer", type);
    Peer peer = run("llama_cpp_logits.py", gguf, prompt());
    compare("llama-cpp-python", type.name(), peer, gguf, tolerance);
  }

  /**
   * Not those of which llama.cpp leaves something out: the windows of Mistral and Phi 3, and a
   * scale of attention that is not the head's width's.
   */
  static List<String> architecturesOfLlamaCpp() {
    List<String> names = new ArrayList<>(RecordedModels.names());
    names.removeAll(List.of("mistral", "phi3", "gemma2-scaled"));
    return names;
  }

  @ParameterizedTest
  @MethodSource("architecturesOfLlamaCpp")
  void llamaCppAgreesOnEveryArchitecture(String name) throws IOException, InterruptedException {
    assumeTrue(has("llama_cpp"), "no llama_cpp there");
    folder = temporary.resolve(name);
    RecordedModels.write(name, folder);
    Path gguf = temporary.resolve("model.gguf");
    // Not by its name: llama.cpp expects certain tokens of a model called phi3.
    GgufConverter.convert(folder, gguf, "peer", WeightType.F32);
    compare("llama-cpp-python", name, run("llama_cpp_logits.py", gguf, prompt()), gguf, 0.002f);
  }

  /**
   * Files that llama.cpp quantised, numbered as its {@code llama_ftype}; some mix several types. It
   * rounds activations to 8 bits for them, hence the tolerance.
   */
  @ParameterizedTest
  @CsvSource({"Q4_0, 2", "Q4_K_S, 14", "Q4_K_M, 15", "Q5_K_M, 17", "Q6_K, 18", "BF16, 32"})
  void llamaCppAgreesOnFilesThatItQuantised(String name, int fileType)
      throws IOException, InterruptedException {
    assumeTrue(has("llama_cpp"), "no llama_cpp there");
    Path whole = temporary.resolve("whole.gguf");
    RandomModel.write(whole, TestModels.WIDE, WeightType.F32, 9);
    Path gguf = temporary.resolve("model.gguf");
    execute("llama_cpp_quantize.py", whole.toString(), gguf.toString(), String.valueOf(fileType));
    int[] prompt = new Random(9).ints(24, 0, 256).toArray();
    compare("llama-cpp-python", name, run("llama_cpp_logits.py", gguf, prompt), gguf, 0.05f);
  }

  @Test
  void transformersAgreesOnTokensAndLogits() throws IOException, InterruptedException {
    assumeTrue(has("transformers"), "no transformers there");
    Path gguf = temporary.resolve("model.gguf");
    GgufConverter.convert(folder, gguf, "peer", WeightType.F32);
    Peer peer = run("transformers_logits.py", folder, prompt());
    compare("transformers", "folder", peer, gguf, 0.0001f);
  }

  private int[] prompt() {
    try (Tokenizer tokenizer = Tokenizer.fromFile(folder.resolve("tokenizer.json"))) {
      return Arrays.copyOf(tokenizer.encode(TestFolders.TEXT), 24);
    }
  }

  private void compare(String program, String what, Peer peer, Path gguf, float share) {
    try (Tokenizer tokenizer =
        Tokenizer.fromGguf(GgufHeader.read(gguf).metadata(), gguf.toString())) {
      assertThat(tokenizer.encode(TestFolders.TEXT)).isEqualTo(peer.text());
    }
    // Our logits along the peer's tokens: one flip between near-equals must not hide the rest.
    Greedy.Result ours = Greedy.run(gguf, peer.tokens(), 0);
    float scale = 0;
    for (float[] logits : peer.logits()) {
      for (float logit : logits) {
        scale = Math.max(scale, Math.abs(logit));
      }
    }
    float tolerance = share * scale;
    int agree = 0;
    float largest = 0;
    for (int t = 0; t < peer.tokens().length; t++) {
      float[] a = ours.logits()[t];
      float[] b = peer.logits()[t];
      for (int i = 0; i < a.length; i++) {
        largest = Math.max(largest, Math.abs(a[i] - b[i]));
      }
      int best = Greedy.argmax(a);
      agree += best == Greedy.argmax(b) ? 1 : 0;
      assertThat(a[best] - a[Greedy.argmax(b)])
          .as("the peer's choice at position %d is ours or nearly ours", t)
          .isLessThanOrEqualTo(2 * tolerance);
    }
    System.out.printf(
        "peer %s %s, %s: %d of %d most likely tokens equal, logits within %.6f of %.1f%n",
        program, peer.version(), what, agree, peer.tokens().length, largest, scale);
    assertThat(largest).isLessThanOrEqualTo(tolerance);
    if (what.equals("F32") || what.equals("folder")) {
      int prompt = peer.tokens().length - GENERATED;
      assertThat(Greedy.run(gguf, Arrays.copyOf(peer.tokens(), prompt), GENERATED).tokens())
          .isEqualTo(peer.tokens());
    }
  }

  private boolean has(String module) throws IOException, InterruptedException {
    return new ProcessBuilder(python, "-c", "import " + module)
            .redirectErrorStream(true)
            .redirectOutput(temporary.resolve("import.log").toFile())
            .start()
            .waitFor()
        == 0;
  }

  private Peer run(String script, Path model, int[] prompt)
      throws IOException, InterruptedException {
    Path text = Files.writeString(temporary.resolve("text"), TestFolders.TEXT);
    Path out = temporary.resolve("logits");
    List<String> arguments =
        new ArrayList<>(
            List.of(model.toString(), out.toString(), String.valueOf(GENERATED), text.toString()));
    for (int token : prompt) {
      arguments.add(String.valueOf(token));
    }
    String output = execute(script, arguments.toArray(String[]::new));
    JsonNode json = Json.MAPPER.readTree(output.lines().toList().getLast());
    int[] tokens = Json.MAPPER.convertValue(json.path("tokens"), int[].class);
    ByteBuffer logits = ByteBuffer.wrap(Files.readAllBytes(out)).order(ByteOrder.LITTLE_ENDIAN);
    float[][] rows = new float[tokens.length][logits.remaining() / 4 / tokens.length];
    for (float[] row : rows) {
      for (int i = 0; i < row.length; i++) {
        row[i] = logits.getFloat();
      }
    }
    return new Peer(
        json.path("version").asText(),
        tokens,
        Json.MAPPER.convertValue(json.path("text"), int[].class),
        rows);
  }

  /** What a script prints. */
  private String execute(String script, String... arguments)
      throws IOException, InterruptedException {
    Path file = temporary.resolve(script);
    try (var resource = PeerTest.class.getResourceAsStream("/peer/" + script)) {
      Files.write(file, Objects.requireNonNull(resource).readAllBytes());
    }
    List<String> command = new ArrayList<>(List.of(python, file.toString()));
    command.addAll(List.of(arguments));
    Path log = temporary.resolve("peer.log");
    Process process = new ProcessBuilder(command).redirectError(log.toFile()).start();
    String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
    assertThat(process.waitFor()).as(() -> read(log)).isZero();
    return output;
  }

  private static String read(Path log) {
    try {
      return Files.readString(log);
    } catch (IOException e) {
      return e.toString();
    }
  }
}
