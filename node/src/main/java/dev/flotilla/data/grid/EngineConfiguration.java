package dev.flotilla.data.grid;

import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.function.Consumer;
import org.apache.ignite.Ignite;
import org.apache.ignite.calcite.CalciteQueryEngineConfiguration;
import org.apache.ignite.configuration.DataRegionConfiguration;
import org.apache.ignite.configuration.DataStorageConfiguration;
import org.apache.ignite.configuration.IgniteConfiguration;
import org.apache.ignite.configuration.SqlConfiguration;
import org.apache.ignite.configuration.SystemDataRegionConfiguration;
import org.apache.ignite.configuration.TransactionConfiguration;
import org.apache.ignite.configuration.WALMode;
import org.apache.ignite.events.EventType;
import org.apache.ignite.failure.AbstractFailureHandler;
import org.apache.ignite.failure.FailureContext;
import org.apache.ignite.failure.FailureType;
import org.apache.ignite.logger.slf4j.Slf4jLogger;
import org.apache.ignite.plugin.segmentation.SegmentationPolicy;
import org.apache.ignite.spi.communication.tcp.TcpCommunicationSpi;
import org.apache.ignite.spi.discovery.tcp.TcpDiscoverySpi;
import org.apache.ignite.spi.discovery.tcp.ipfinder.vm.TcpDiscoveryVmIpFinder;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** How the engine of the grid is set: small, durable, and never the master of the process. */
final class EngineConfiguration {

  private static final Logger log = LoggerFactory.getLogger(Grid.class);
  private static final long JOIN_TIMEOUT_MS = 20_000;
  private static final int TRANSACTION_TIMEOUT_MS = 10_000;

  private EngineConfiguration() {}

  /**
   * @param seeds the nodes to join, by id; without any it begins a topology of its own
   * @param beforeJoin told of the engine when it has its own data, and not yet any of the others'
   * @param onFailure called when a part of the engine has ended for good, and it must be started
   *     again
   */
  static IgniteConfiguration of(
      GridConfig config,
      Cluster cluster,
      Set<String> seeds,
      Consumer<Ignite> beforeJoin,
      Runnable onFailure) {
    TcpDiscoverySpi discovery = new Discovery(beforeJoin);
    discovery.setIpFinder(
        new TcpDiscoveryVmIpFinder(false).setAddresses(addresses(config, cluster, seeds)));
    discovery.setLocalPort(config.discoveryPort());
    discovery.setLocalPortRange(0);
    discovery.setJoinTimeout(JOIN_TIMEOUT_MS);
    TcpCommunicationSpi communication = config.messages().get();
    communication.setLocalPort(config.messagePort());
    communication.setLocalPortRange(0);
    return new IgniteConfiguration()
        .setIgniteInstanceName(cluster.self())
        .setConsistentId(cluster.self())
        .setLocalHost(config.bindHost())
        .setWorkDirectory(config.folder().toString())
        .setGridLogger(new Slf4jLogger())
        .setMetricsLogFrequency(0)
        .setPeerClassLoadingEnabled(false)
        .setConnectorConfiguration(null)
        .setClientConnectorConfiguration(null)
        .setSslContextFactory(new MutualTls(cluster.tls()))
        .setDiscoverySpi(discovery)
        .setCommunicationSpi(communication)
        .setFailureDetectionTimeout(config.failureDetection().toMillis())
        .setIncludeEventTypes(
            EventType.EVT_NODE_JOINED,
            EventType.EVT_NODE_LEFT,
            EventType.EVT_NODE_FAILED,
            EventType.EVT_NODE_SEGMENTED,
            EventType.EVT_CACHE_STARTED,
            EventType.EVT_CACHE_STOPPED)
        .setSegmentationPolicy(SegmentationPolicy.NOOP)
        .setFailureHandler(new Report(onFailure))
        .setDataStorageConfiguration(storage(config))
        .setPluginProviders(new CommitLog())
        .setTransactionConfiguration(
            new TransactionConfiguration()
                .setTxAwareQueriesEnabled(true)
                // No time-out at changes of the topology: see TransactionWatch.
                .setDefaultTxTimeout(TRANSACTION_TIMEOUT_MS))
        .setSqlConfiguration(
            new SqlConfiguration()
                .setQueryEnginesConfiguration(
                    new CalciteQueryEngineConfiguration().setDefault(true)))
        .setSystemThreadPoolSize(4)
        .setStripedPoolSize(4)
        .setPublicThreadPoolSize(2)
        .setServiceThreadPoolSize(2)
        .setManagementThreadPoolSize(2)
        .setQueryThreadPoolSize(4)
        .setDataStreamerThreadPoolSize(2)
        .setRebalanceThreadPoolSize(2)
        .setBuildIndexThreadPoolSize(1)
        .setAsyncCallbackPoolSize(2);
  }

  private static List<String> addresses(GridConfig config, Cluster cluster, Set<String> seeds) {
    List<String> addresses = new ArrayList<>();
    for (NodeInfo node : cluster.nodes()) {
      if (seeds.contains(node.id())) {
        addresses.add(node.host() + ":" + (node.httpPort() + GridConfig.DISCOVERY_OFFSET));
      }
    }
    addresses.add(config.bindHost() + ":" + config.discoveryPort());
    return addresses.stream().distinct().toList();
  }

  private static DataStorageConfiguration storage(GridConfig config) {
    return new DataStorageConfiguration()
        .setDefaultDataRegionConfiguration(
            new DataRegionConfiguration()
                .setName("default")
                .setPersistenceEnabled(true)
                .setInitialSize(Math.min(32L << 20, config.memoryBytes()))
                .setMaxSize(config.memoryBytes())
                .setCheckpointPageBufferSize(Math.min(32L << 20, config.memoryBytes() / 4)))
        .setSystemDataRegionConfiguration(
            new SystemDataRegionConfiguration().setInitialSize(12L << 20).setMaxSize(40L << 20))
        .setWalMode(WALMode.FSYNC)
        // Not to gather writers: each would sleep before it forces the log, and Combiner gathers.
        // The engine takes 0 for its own 1,000, which is 60 us and more; 1 is over at once.
        .setWalFsyncDelayNanos(1)
        .setFileIOFactory(new CommitLog.Files())
        .setWalSegmentSize(8 << 20)
        .setWalSegments(4)
        .setMaxWalArchiveSize(128L << 20)
        // Points of a backup are made of compacted segments.
        .setWalCompactionEnabled(true)
        .setStoragePath(config.pages().toString())
        .setWalPath(config.writeAheadLog().toString())
        .setWalArchivePath(config.writeAheadLog().resolve("archive").toString());
  }

  /** The last that the engine starts: its own data is restored by then. */
  private static final class Discovery extends TcpDiscoverySpi {

    private final Consumer<Ignite> beforeJoin;

    Discovery(Consumer<Ignite> beforeJoin) {
      this.beforeJoin = beforeJoin;
    }

    @Override
    public void spiStart(@Nullable String name) {
      beforeJoin.accept(ignite());
      super.spiStart(name);
    }
  }

  /** The engine's own handler would halt the process, and models with it. */
  private static final class Report extends AbstractFailureHandler {

    private final Runnable onFailure;

    Report(Runnable onFailure) {
      this.onFailure = onFailure;
    }

    @Override
    protected boolean handle(Ignite ignite, FailureContext failure) {
      log.error("data grid: {}", failure.type(), failure.error());
      if (failure.type() == FailureType.CRITICAL_ERROR
          || failure.type() == FailureType.SYSTEM_WORKER_TERMINATION) {
        onFailure.run();
      }
      return false;
    }
  }
}
