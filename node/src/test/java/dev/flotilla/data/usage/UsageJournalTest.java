package dev.flotilla.data.usage;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class UsageJournalTest {

  @TempDir Path folder;

  private static UsageEvent event(int i) {
    return new UsageEvent("r" + i, i, "key", "model", 1, 2, false);
  }

  private static List<Integer> numbers(UsageJournal journal) throws IOException {
    List<Integer> numbers = new ArrayList<>();
    for (Path sealed : journal.seal()) {
      journal.read(sealed).forEach(event -> numbers.add((int) event.timeMs()));
    }
    return numbers;
  }

  /** Appends for ever, and says each event only after it was appended. */
  static final class Victim {

    private Victim() {}

    public static void main(String[] arguments) throws Exception {
      UsageJournal journal = new UsageJournal(Path.of(arguments[0]), Long.MAX_VALUE);
      for (int i = 0; ; i++) {
        journal.append(List.of(event(i)));
        System.out.println(i);
        if (i % 1000 == 999) {
          journal.seal();
        }
      }
    }
  }

  @Test
  void whatWasAppendedOutlivesKillNine() throws Exception {
    Process victim =
        new ProcessBuilder(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:TieredStopAtLevel=1",
                "-cp",
                System.getProperty("java.class.path"),
                Victim.class.getName(),
                folder.toString())
            .redirectError(ProcessBuilder.Redirect.INHERIT)
            .start();
    int last = -1;
    try (BufferedReader lines = victim.inputReader()) {
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        if (line.matches("\\d+")) {
          last = Math.max(last, Integer.parseInt(line));
        }
        if (last == 2500) {
          // By its handle, which leaves the pipe open for what it has said.
          victim.toHandle().destroyForcibly();
        }
      }
    } finally {
      victim.destroyForcibly();
    }
    assertThat(victim.waitFor()).isEqualTo(128 + 9);
    List<Integer> kept = numbers(new UsageJournal(folder, Long.MAX_VALUE));
    assertThat(kept.size()).isGreaterThanOrEqualTo(last);
    for (int i = 0; i < kept.size(); i++) {
      assertThat(kept.get(i)).isEqualTo(i);
    }
  }

  @Test
  void aTornEndLosesOnlyItself() throws Exception {
    try (UsageJournal journal = new UsageJournal(folder, Long.MAX_VALUE)) {
      journal.append(List.of(event(0), event(1)));
      journal.append(List.of(event(2)));
    }
    Path file = folder.resolve("000000000000.log");
    byte[] whole = Files.readAllBytes(file);
    for (int cut = 1; cut < 60; cut++) {
      Files.write(file, Arrays.copyOf(whole, whole.length - cut));
      assertThat(numbers(new UsageJournal(folder, Long.MAX_VALUE))).containsExactly(0, 1);
    }
    whole[whole.length - 3] ^= 1;
    Files.write(file, whole);
    UsageJournal again = new UsageJournal(folder, Long.MAX_VALUE);
    assertThat(numbers(again)).containsExactly(0, 1);
    again.append(List.of(event(3)));
    assertThat(numbers(again)).containsExactly(0, 1, 3);
  }

  @Test
  void itIsBounded() throws Exception {
    UsageJournal journal = new UsageJournal(folder, 100);
    journal.append(List.of(event(0), event(1), event(2)));
    List<Path> sealed = journal.seal();
    assertThatThrownBy(() -> journal.append(List.of(event(3)))).hasMessageContaining("not shipped");
    journal.delete(sealed.getFirst());
    journal.append(List.of(event(4)));
    assertThat(numbers(journal)).containsExactly(4);
  }
}
