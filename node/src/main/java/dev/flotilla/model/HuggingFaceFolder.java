package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * A model as a Hugging Face folder: {@code config.json} and safetensors. Its tensors are named
 * {@code model.layers.N.self_attn.q_proj.weight} and so on.
 */
public final class HuggingFaceFolder implements AutoCloseable {

  /** What stands for {@code model.} in the files of models that also see pictures. */
  private static final List<String> LANGUAGE_PREFIXES =
      List.of("model.", "language_model.model.", "model.language_model.");

  /** Tensors that are not weights of the language part, or follow from its configuration. */
  private static final List<String> UNUSED =
      List.of("rotary_emb.inv_freq", "vision_tower.", "multi_modal_projector.");

  private final Path folder;
  private final HuggingFaceConfig config;
  private final Safetensors tensors;
  private final Set<String> used = new HashSet<>();

  private HuggingFaceFolder(Path folder, HuggingFaceConfig config, Safetensors tensors) {
    this.folder = folder;
    this.config = config;
    this.tensors = tensors;
  }

  /**
   * Opens a folder; the architecture is checked before any weights are touched.
   *
   * @throws FlotillaException {@code NOT_FOUND}, {@code BAD_FILE} or {@code STORAGE}
   */
  public static HuggingFaceFolder open(Path folder) {
    if (!Files.isDirectory(folder)) {
      throw new FlotillaException(
          FlotillaException.Code.NOT_FOUND, folder + " is not a folder", "Check the path");
    }
    HuggingFaceConfig config = HuggingFaceConfig.read(folder.resolve("config.json"));
    return new HuggingFaceFolder(folder, config, Safetensors.open(folder));
  }

  /** The model's shape. */
  public ModelConfig config() {
    return config.config();
  }

  /** What GGUF keeps as tensors and {@code config.json} has, by the names in GGUF. */
  Map<String, float[]> ropeFactors() {
    return config.ropeFactors();
  }

  /** Where it is. */
  public Path folder() {
    return folder;
  }

  /**
   * A tensor under its name in Hugging Face's layout.
   *
   * @param shape slowest dimension first, which it must have
   * @throws FlotillaException {@code BAD_FILE} if it is missing or has another shape
   */
  public Safetensors.Tensor tensor(String name, List<Integer> shape) {
    String there = name;
    for (String prefix : LANGUAGE_PREFIXES) {
      String other = name.replaceFirst("^model\\.", prefix);
      if (tensors.find(other).isPresent()) {
        there = other;
        break;
      }
    }
    used.add(there);
    return tensors.tensor(there, shape);
  }

  /**
   * Checks that every weight was asked for: one that was not belongs to something that we would
   * leave out.
   *
   * @throws FlotillaException {@code BAD_FILE} naming one that was not
   */
  void requireAllUsed() {
    for (String name : tensors.names()) {
      boolean spare = UNUSED.stream().anyMatch(name::contains);
      boolean tied = config().tiedEmbeddings() && name.endsWith("lm_head.weight");
      if (!spare && !tied && !used.contains(name)) {
        throw WeightFiles.bad(
            folder.toString(),
            "tensor " + name + " belongs to a variant that does not run here",
            "Give a model that runs here: see the README");
      }
    }
  }

  @Override
  public void close() {
    tensors.close();
  }

  /**
   * Reads {@code config.json}.
   *
   * @throws FlotillaException {@code NOT_FOUND} or {@code BAD_FILE} naming the field
   */
  public static ModelConfig readConfig(Path file) {
    return HuggingFaceConfig.read(file).config();
  }

  /**
   * A {@code config.json} that Hugging Face's {@code LlamaForCausalLM} reads.
   *
   * @param bosToken the id of the token that begins a text
   * @param eosToken the id of the token that ends an answer
   */
  public static String configJson(ModelConfig c, int bosToken, int eosToken) {
    return HuggingFaceConfig.llamaJson(c, bosToken, eosToken);
  }
}
