package dev.flotilla.data.search;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

class SearchHedgeTest {

  private static final long SOON_NS = 20_000_000;

  private final List<String> asked = new ArrayList<>();
  private final List<CompletableFuture<String>> running = new ArrayList<>();
  private final AtomicInteger hedges = new AtomicInteger();

  /** Those named answer, fail, or never say anything. */
  private Optional<String> first(Map<String, String> says, String... candidates)
      throws InterruptedException {
    return SearchHedge.first(
        List.of(candidates),
        (candidate, outcome) -> {
          asked.add(candidate);
          CompletableFuture<String> future = new CompletableFuture<>();
          running.add(future);
          String said = says.getOrDefault(candidate, "");
          if (said.startsWith("fails")) {
            outcome.accept(
                new SearchHedge.Outcome<>(
                    Optional.empty(), Optional.of(new IllegalStateException(said))));
          } else if (!said.isEmpty()) {
            outcome.accept(new SearchHedge.Outcome<>(Optional.of(said), Optional.empty()));
          }
          return future;
        },
        failure ->
            failure.getMessage().contains("refuses")
                ? Optional.of(
                    new FlotillaException(FlotillaException.Code.INVALID, "a bad question", ""))
                : Optional.empty(),
        hedges::incrementAndGet,
        SOON_NS,
        System.nanoTime() + 50 * SOON_NS,
        System::nanoTime);
  }

  @Test
  void whoAnswersIsNotFollowedByAnother() throws InterruptedException {
    assertThat(first(Map.of("a", "yes", "b", "also"), "a", "b")).contains("yes");
    assertThat(asked).containsExactly("a");
    assertThat(hedges).hasValue(0);
  }

  @Test
  void whoFailsIsFollowedByTheNextAtOnce() throws InterruptedException {
    assertThat(first(Map.of("a", "fails", "b", "fails", "c", "yes"), "a", "b", "c"))
        .contains("yes");
    assertThat(hedges).hasValue(0);
  }

  @Test
  void whoIsSlowIsNotWaitedForAloneAndIsCancelled() throws InterruptedException {
    assertThat(first(Map.of("b", "yes"), "a", "b")).contains("yes");
    assertThat(asked).containsExactly("a", "b");
    assertThat(hedges).hasValue(1);
    assertThat(running.getFirst()).isCancelled();
  }

  @Test
  void whenNobodyAnswersThereIsNoAnswer() throws InterruptedException {
    assertThat(first(Map.of("a", "fails", "b", "fails"), "a", "b")).isEmpty();
    assertThat(first(Map.of(), "c", "d")).isEmpty();
    assertThat(first(Map.of())).isEmpty();
  }

  @Test
  void aBadQuestionIsNotAskedAgain() {
    assertThatThrownBy(() -> first(Map.of("a", "fails: refuses", "b", "yes"), "a", "b"))
        .hasMessageContaining("bad question");
    assertThat(asked).containsExactly("a");
  }
}
