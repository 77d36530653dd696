package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.Map;
import picocli.CommandLine.Command;

/** Prints a one-time join token. */
@Command(
    name = "invite",
    description = "Print a one-time token with which another machine joins.",
    mixinStandardHelpOptions = true)
final class InviteCommand extends ClientCommand {

  @Override
  public Integer call() {
    JsonNode invite = client().post("/api/invites", Map.of());
    if (asJson) {
      return print(invite);
    }
    System.out.println(invite.path("token").asText());
    System.err.println("On the other machine, run: " + invite.path("command").asText());
    return 0;
  }
}
