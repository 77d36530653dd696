package dev.flotilla.model;

import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.stream.Collectors;

/** The architectures that run here, with what files call them. */
public enum Architecture {
  /** Llama 2 and 3, Mistral, SmolLM and all that are built like them. */
  LLAMA("llama", List.of("llama", "mistral"), new Llama()),
  /** Qwen 2 and 2.5. */
  QWEN2("qwen2", List.of("qwen2"), new Qwen2()),
  /** Qwen 3. */
  QWEN3("qwen3", List.of("qwen3"), new Qwen3()),
  /** Qwen 3 as a mixture of experts. */
  QWEN3_MOE("qwen3moe", List.of("qwen3_moe"), new Qwen3Moe()),
  /** Gemma 2. */
  GEMMA2("gemma2", List.of("gemma2"), new Gemma2()),
  /** Gemma 3, its language part. */
  GEMMA3("gemma3", List.of("gemma3_text", "gemma3"), new Gemma3()),
  /** Phi 3, 3.5 and 4. */
  PHI3("phi3", List.of("phi3"), new Phi3()),
  /** SmolLM 3. */
  SMOLLM3("smollm3", List.of("smollm3"), new SmolLm3());

  private final String gguf;
  private final List<String> huggingFace;
  private final Definition definition;

  Architecture(String gguf, List<String> huggingFace, Definition definition) {
    this.gguf = gguf;
    this.huggingFace = huggingFace;
    this.definition = definition;
  }

  /** Its {@code general.architecture} in GGUF, which its metadata keys begin with. */
  public String gguf() {
    return gguf;
  }

  Definition definition() {
    return definition;
  }

  /** By {@code general.architecture}. */
  static Optional<Architecture> ofGguf(String name) {
    return Arrays.stream(values()).filter(a -> a.gguf.equals(name)).findFirst();
  }

  /** By the {@code model_type} of a config.json. */
  static Optional<Architecture> ofHuggingFace(String modelType) {
    return Arrays.stream(values()).filter(a -> a.huggingFace.contains(modelType)).findFirst();
  }

  /** All names that GGUF has for them, for messages. */
  static String ggufNames() {
    return Arrays.stream(values()).map(Architecture::gguf).collect(Collectors.joining(", "));
  }

  /** All names that config.json has for them, for messages. */
  static String huggingFaceNames() {
    return Arrays.stream(values())
        .flatMap(a -> a.huggingFace.stream())
        .collect(Collectors.joining(", "));
  }
}
