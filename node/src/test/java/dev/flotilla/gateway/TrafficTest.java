package dev.flotilla.gateway;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.micrometer.core.instrument.simple.SimpleMeterRegistry;
import java.util.concurrent.atomic.AtomicLong;
import org.junit.jupiter.api.Test;

class TrafficTest {

  private final AtomicLong nowNs = new AtomicLong(-7_000_000_123L);
  private final SimpleMeterRegistry metrics = new SimpleMeterRegistry();
  private final Traffic traffic = new Traffic(metrics, nowNs::get);

  private void tokens(int count, long everyNs) {
    Traffic.Request request = traffic.request(10);
    for (int i = 0; i < count; i++) {
      nowNs.addAndGet(everyNs);
      request.token();
    }
    request.end();
  }

  @Test
  void aSteadyStreamHasItsRateAndSilenceHasNone() {
    tokens(200, 50_000_000L);
    assertThat(traffic.tokensPerSecond()).isCloseTo(20, within(1.0));
    nowNs.addAndGet(1_500_000_000L);
    assertThat(traffic.tokensPerSecond()).isCloseTo(10, within(2.0));
    nowNs.addAndGet(4_000_000_000L);
    assertThat(traffic.tokensPerSecond()).isZero();
    nowNs.addAndGet(3_600_000_000_000L);
    tokens(30, 100_000_000L);
    assertThat(traffic.tokensPerSecond()).isCloseTo(10, within(1.0));
  }

  @Test
  void countsAreMetrics() {
    tokens(5, 1_000_000L);
    assertThat(metrics.counter("flotilla.generated.tokens").count()).isEqualTo(5);
    assertThat(metrics.counter("flotilla.prompt.tokens").count()).isEqualTo(10);
    assertThat(metrics.timer("flotilla.time.to.first.token").count()).isEqualTo(1);
    assertThat(traffic.requestsRunning()).isZero();
  }
}
