package dev.flotilla.app;

import dev.flotilla.client.Models;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import picocli.CommandLine.Command;
import picocli.CommandLine.Parameters;

/** Shows the vectors of texts, in the form in which {@code search --vector} takes them. */
@Command(
    name = "embed",
    description = "Embed texts with a model that is served; prints a line of numbers for each.",
    mixinStandardHelpOptions = true)
final class EmbedCommand extends ClientCommand {

  @Parameters(index = "0", paramLabel = "MODEL", description = "The model's name.")
  private String model = "";

  @Parameters(index = "1..*", arity = "1..*", paramLabel = "TEXT", description = "A text each.")
  private List<String> texts = List.of();

  @Override
  public Integer call() {
    if (asJson) {
      return print(client().post("/v1/embeddings", Map.of("model", model, "input", texts)));
    }
    for (float[] vector : new Models(client()).embed(model, texts)) {
      List<String> numbers = new ArrayList<>();
      for (float number : vector) {
        numbers.add(Float.toString(number));
      }
      System.out.println(String.join(",", numbers));
    }
    return 0;
  }
}
