package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;
import picocli.CommandLine;

/** What people read of the commands. */
class HelpTest {

  /** A list of commands shows the first line of each. */
  @Test
  void theFirstLineOfEachCommandsDescriptionIsAWholeSentence() {
    check(new CommandLine(new Main()));
  }

  private static void check(CommandLine command) {
    command
        .getSubcommands()
        .forEach(
            (name, each) -> {
              String[] description = each.getCommandSpec().usageMessage().description();
              assertThat(description).as(name).isNotEmpty();
              assertThat(description[0]).as(name).matches(".*[.']");
              check(each);
            });
  }
}
