package dev.flotilla.model;

import dev.flotilla.text.BpeTrainer;
import dev.flotilla.text.BpeVocabulary;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;

/** Hugging Face folders as our trainer writes them, but with random weights. */
final class TestFolders {

  static final String TEXT =
      "Alice holds the lamp. Bob puts the lamp in the box, and Alice's brother can't see it: 17 +"
          + " 25 = 42!\nThe naïve café — where is it now?  Two  spaces.\n";
  static final String TEMPLATE = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}";

  private static final List<String> SPECIAL = List.of("<|start|>", "<|end|>");

  private TestFolders() {}

  /** Tokenizer, chat template and what is beside them; how many tokens there are. */
  static int writeText(Path folder) throws IOException {
    Files.createDirectories(folder);
    BpeVocabulary vocabulary = BpeTrainer.train(TEXT.repeat(3), 300, SPECIAL);
    vocabulary.write(folder.resolve("tokenizer.json"));
    Files.writeString(
        folder.resolve("generation_config.json"), "{\"bos_token_id\":0,\"eos_token_id\":[1,0]}");
    Files.writeString(folder.resolve("chat_template.jinja"), TEMPLATE);
    Files.writeString(
        folder.resolve("tokenizer_config.json"),
        "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"eos_token\":\"<|end|>\"}");
    return vocabulary.tokens().size();
  }

  static ModelConfig write(Path folder, boolean tied) throws IOException {
    int size = writeText(folder) + (tied ? 0 : 5);
    ModelConfig config =
        tied
            ? new ModelConfig(size, 64, 3, 4, 2, 16, 96, 256, 10000f, 1e-5f, true)
            : new ModelConfig(size, 96, 2, 3, 1, 32, 160, 256, 50000f, 1e-6f, false);
    Files.writeString(folder.resolve("config.json"), HuggingFaceFolder.configJson(config, 0, 1));
    Random random = new Random(17);
    List<Safetensors.Tensor> tensors = new ArrayList<>();
    ModelTensors.all(config)
        .forEach(
            (name, part) -> {
              List<Integer> shape = part.shape();
              float[] values = new float[shape.stream().reduce(1, Math::multiplyExact)];
              double deviation = shape.size() == 1 ? 0.2 : 1 / Math.sqrt(shape.getFirst());
              double mean = shape.size() == 1 ? 1 : 0;
              for (int i = 0; i < values.length; i++) {
                values[i] = (float) (mean + deviation * random.nextGaussian());
              }
              tensors.add(Safetensors.Tensor.of(part.huggingFace(), shape.reversed(), values));
            });
    Safetensors.write(folder.resolve("model.safetensors"), Map.of("format", "pt"), tensors);
    return config;
  }
}
