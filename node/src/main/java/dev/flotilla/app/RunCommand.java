package dev.flotilla.app;

import dev.flotilla.client.Client;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine.Command;
import picocli.CommandLine.Parameters;

/** Chats in the terminal. */
@Command(
    name = "run",
    description = "Chat with a deployed model; with a PROMPT, answer that and end.",
    mixinStandardHelpOptions = true)
final class RunCommand extends ClientCommand {

  @Parameters(index = "0", paramLabel = "MODEL", description = "A deployed model.")
  private String model = "";

  @Parameters(index = "1", arity = "0..1", paramLabel = "PROMPT", description = "What to ask.")
  private Optional<String> prompt = Optional.empty();

  private final List<Map<String, String>> messages = new ArrayList<>();

  @Override
  public Integer call() throws IOException {
    Client client = client();
    if (prompt.isPresent()) {
      answer(client, prompt.get());
      return 0;
    }
    boolean terminal = Terminal.attached();
    if (terminal) {
      System.err.println("Chat with " + model + "; an empty line or Ctrl-D ends.");
    }
    BufferedReader input =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    while (true) {
      if (terminal) {
        System.err.print("> ");
        System.err.flush();
      }
      String line = input.readLine();
      if (line == null || line.isBlank()) {
        return 0;
      }
      answer(client, line);
    }
  }

  private void answer(Client client, String question) {
    messages.add(Map.of("role", "user", "content", question));
    StringBuilder text = new StringBuilder();
    client.stream(
        "/v1/chat/completions",
        Map.of("model", model, "messages", messages, "stream", true),
        event -> {
          String piece = event.path("choices").path(0).path("delta").path("content").asText();
          text.append(piece);
          if (!asJson) {
            System.out.print(piece);
            System.out.flush();
          }
        });
    if (asJson) {
      System.out.println(json(Map.of("model", model, "content", text.toString())));
    } else {
      System.out.println();
    }
    messages.add(Map.of("role", "assistant", "content", text.toString()));
  }
}
