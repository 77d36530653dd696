package dev.flotilla.train;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.model.GgufConverter;
import dev.flotilla.model.GgufFile;
import dev.flotilla.model.KvFormat;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import dev.flotilla.model.PackedSlice;
import dev.flotilla.model.Sequences;
import dev.flotilla.tensor.WeightType;
import dev.flotilla.text.ChatTemplate;
import dev.flotilla.text.Tokenizer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.time.ZoneOffset;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class CheckpointTest {

  @TempDir Path folder;

  /** The two backends share the model's definition, and nothing else. */
  @Test
  void servesTheTokensThatTheTrainerPredicts() {
    TrainingConfig config = DataParallelTest.TINY;
    try (ChatData data = new ChatData(config);
        Trainer trainer =
            new Trainer(config, data, 0, 1, GradientExchange.alone(), System::nanoTime)) {
      trainer.run(config.steps(), point -> {});
      Path checkpoint = folder.resolve("model");
      Checkpoint.write(checkpoint, trainer.model(), data);
      Path gguf = folder.resolve("model.gguf");
      GgufConverter.convert(checkpoint, gguf, "tiny", WeightType.F32);

      List<int[]> prompts = new ArrayList<>();
      for (SmallWorld.Question question : SmallWorld.heldOut(1, 24)) {
        prompts.add(data.prompt(question.prompt()));
      }
      int[] expected = trainer.model().nextTokens(prompts);
      int layers = config.layers() - 1;
      try (GgufFile file = GgufFile.open(gguf);
          LayerSlice slice =
              PackedSlice.load(file, new LayerRange(0, layers), 1, KvFormat.F32, 4_096)) {
        int[] served = new int[prompts.size()];
        Sequences sequences = new Sequences(slice.blocks());
        for (int p = 0; p < served.length; p++) {
          int[] tokens = prompts.get(p);
          float[] hidden = slice.embed(tokens);
          slice.forward(hidden, sequences.prompt(p, tokens.length));
          float[] logits = slice.logits(hidden, new int[] {tokens.length - 1});
          for (int token = 1; token < logits.length; token++) {
            served[p] = logits[token] > logits[served[p]] ? token : served[p];
          }
          sequences.release(p);
        }
        assertThat(served).isEqualTo(expected);
      }
    }
  }

  @Test
  void theTemplateRendersWhatWasTrainedOn() throws Exception {
    TrainingConfig config = DataParallelTest.TINY;
    try (ChatData data = new ChatData(config);
        Trainer trainer =
            new Trainer(config, data, 0, 1, GradientExchange.alone(), System::nanoTime)) {
      Path checkpoint = folder.resolve("model");
      Checkpoint.write(checkpoint, trainer.model(), data);
      Checkpoint.write(checkpoint, trainer.model(), data); // in place of the first
      try (Tokenizer tokenizer = Tokenizer.fromFile(checkpoint.resolve("tokenizer.json"))) {
        String source = Files.readString(checkpoint.resolve("chat_template.jinja"));
        var messages = List.of(Map.of("role", "user", "content", "Who has <|end|> it?"));
        var rendered =
            ChatTemplate.parse(source)
                .render(
                    Map.of("messages", messages, "add_generation_prompt", true),
                    Map.of("bos_token", TrainingData.BEGIN),
                    Instant.EPOCH.atZone(ZoneOffset.UTC));
        assertThat(tokenizer.encode(rendered)).isEqualTo(data.prompt("Who has <|end|> it?"));
      }
      try (var files = Files.list(folder)) {
        assertThat(files).containsExactly(checkpoint);
      }
    }
  }
}
