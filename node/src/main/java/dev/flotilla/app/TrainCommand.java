package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.client.Client;
import dev.flotilla.train.TrainingConfig;
import dev.flotilla.train.TrainingConfigFile;
import java.nio.file.Path;
import java.util.Locale;
import picocli.CommandLine.Command;
import picocli.CommandLine.Parameters;

/** Trains a model on the cluster and follows the job to its end. */
@Command(
    name = "train",
    description = "Train a model on the cluster's nodes, as a YAML file describes it.",
    mixinStandardHelpOptions = true)
final class TrainCommand extends ClientCommand {

  @Parameters(paramLabel = "CONFIG.yaml", description = "What to train; see examples/train.yaml.")
  private Path config = Path.of("");

  @Override
  public Integer call() throws InterruptedException {
    TrainingConfigFile.Parsed file =
        TrainingConfigFile.parse(TextFiles.read(config), config.toString());
    TrainingConfig parsed =
        file.config()
            .withText(file.textFile().map(text -> TextFiles.read(config.resolveSibling(text))));
    Client client = client();
    String id = client.post("/api/training", Client.snakeCase(parsed)).path("id").asText();
    System.err.println("job " + id + "; stop it with: flotilla stop " + id);
    JsonNode job = TrainingProgress.follow(client, id);
    if (asJson) {
      return print(job);
    }
    JsonNode last = job.path("curve").path(job.path("curve").size() - 1);
    System.out.printf(
        Locale.ROOT,
        "trained %s: loss %.3f; deploy it with: flotilla serve %s%n",
        parsed.model(),
        last.path("loss").asDouble(),
        parsed.model());
    System.out.printf(
        "its Hugging Face folder: data/training/%s/model in the data folder of node %s%n",
        id, job.path("nodes").path(0).asText());
    return 0;
  }
}
