package dev.flotilla.data.cache;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.HashMap;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;

class NearLeasesTest {

  private static final long LEASE = 1000;

  @Test
  void nothingIsValidBeforeAllWritersHavePromised() {
    NearLeases leases = new NearLeases(LEASE, 0, Set.of("a", "b"));
    leases.granted("a", 10, 11);
    assertThat(leases.epochAt(20)).isNegative();
    leases.granted("b", 12, 13);
    assertThat(leases.epochAt(20)).isPositive();
  }

  @Test
  void aPromiseCountsFromBeforeItWasAskedFor() {
    NearLeases leases = new NearLeases(LEASE, 0, Set.of("a"));
    leases.granted("a", 10, 500);
    assertThat(leases.epochAt(1009)).isPositive();
    assertThat(leases.epochAt(1010)).isNegative();
  }

  @Test
  void renewalInTimeKeepsEverythingAndRenewalTooLateKeepsNothing() {
    NearLeases leases = new NearLeases(LEASE, 0, Set.of("a"));
    leases.granted("a", 10, 11);
    long epoch = leases.epochAt(20);
    leases.granted("a", 900, 1000);
    assertThat(leases.epochAt(1500)).isEqualTo(epoch);
    // Asked in time, but heard of after the old one ran out: the writer may have given up on us.
    leases.granted("a", 1890, 1900);
    assertThat(leases.epochAt(1901)).isGreaterThan(epoch);
  }

  @Test
  void aWriterThatLeavesMakesEverythingInvalid() {
    NearLeases leases = new NearLeases(LEASE, 0, Set.of("a", "b"));
    leases.granted("a", 10, 11);
    leases.granted("b", 10, 11);
    long epoch = leases.epochAt(20);
    leases.require(Set.of("a"));
    assertThat(leases.epochAt(20)).isGreaterThan(epoch);
    leases.require(Set.of("a", "b"));
    assertThat(leases.epochAt(20)).isNegative();
  }

  /**
   * Random schedules of one writer and one reader whose messages take any time and whose lease
   * replies may be lost: whenever the writer has done a write and seen the reader's lease out, the
   * reader must not be able to use what it kept before.
   */
  @Test
  void whatTheWriterMayNotHaveToldIsNeverValid() {
    long seed = new Random().nextLong();
    Random random = new Random(seed);
    for (int round = 0; round < 2000; round++) {
      NearLeases reader = new NearLeases(LEASE, 0, Set.of("w"));
      NearGrants writer = new NearGrants(LEASE);
      Map<Long, Boolean> untold = new HashMap<>();
      long now = 0;
      for (int step = 0; step < 60; step++) {
        now += random.nextInt(400);
        long kept = reader.epochAt(now);
        if (random.nextInt(4) == 0 && !writer.holds("r", now)) {
          // A write that the writer does not tell, since it believes the lease is out.
          assertThat(kept).as("seed %d, round %d", seed, round).isNegative();
          untold.replaceAll((epoch, was) -> true);
        } else {
          long asked = now;
          now += random.nextInt(300);
          writer.grant("r", now);
          now += random.nextInt(300);
          if (random.nextInt(5) > 0) {
            reader.granted("w", asked, now);
          }
        }
        long epoch = reader.epochAt(now);
        if (epoch >= 0) {
          assertThat(untold.getOrDefault(epoch, false))
              .as("seed %d, round %d", seed, round)
              .isFalse();
          untold.putIfAbsent(epoch, false);
        }
      }
    }
  }
}
