package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.client.HttpCaches;
import dev.flotilla.client.HttpTransactions;
import dev.flotilla.data.sql.Transactions;
import dev.flotilla.data.sql.Transactions.Mode;
import dev.flotilla.data.sql.Transactions.Options;
import dev.flotilla.data.sql.Transactions.Step;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What is known of a transaction of the caller's id when its node remembers nothing. */
class TransactionRecordTest {

  @TempDir Path folder;

  @Test
  void itsStepsAndParticipantsOutliveTheProcessThatRanIt() {
    List<Step> steps =
        List.of(
            new Step.Put("kept", "a", Optional.of("1".getBytes(StandardCharsets.UTF_8))),
            new Step.Get("kept", "a"));
    Options options = Options.of(Mode.PESSIMISTIC);
    TestNode node = TestNode.start(folder.resolve("node"));
    Transactions.View ran;
    try (TestNode first = node) {
      var _ =
          new HttpCaches(first.client())
              .create("kept", dev.flotilla.data.cache.CacheConfig.DEFAULT);
      Transactions transactions = new HttpTransactions(first.client());
      assertThat(transactions.run(options, steps, Optional.of("once")).repeated()).isFalse();
      ran = transactions.find("once").orElseThrow();
    }
    try (TestNode again = node.again()) {
      Transactions transactions = new HttpTransactions(again.client());
      Transactions.View kept = transactions.find("once").orElseThrow();
      assertThat(kept.steps()).isEqualTo(ran.steps()).hasSize(2);
      assertThat(kept.participants()).isEqualTo(ran.participants()).isNotEmpty();
      assertThat(kept.state()).isEqualTo(Transactions.State.COMMITTED);
      assertThat(kept.startedAtMs()).isEqualTo(ran.startedAtMs());
      assertThat(transactions.run(options, steps, Optional.of("once")).repeated()).isTrue();
      assertThat(transactions.find("once")).contains(kept);
    }
  }
}
