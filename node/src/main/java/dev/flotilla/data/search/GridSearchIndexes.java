package dev.flotilla.data.search;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.Names;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.data.grid.Grid;
import dev.flotilla.data.grid.TransactionScope;
import dev.flotilla.data.proto.IndexShardsGrpc;
import dev.flotilla.data.proto.ShardAwaitRequest;
import dev.flotilla.data.proto.ShardState;
import io.grpc.StatusRuntimeException;
import io.micrometer.core.instrument.MeterRegistry;
import io.micrometer.core.instrument.Timer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.function.LongSupplier;
import java.util.random.RandomGenerator;

/**
 * Search indexes whose documents lie in the data grid. Make it before the cluster starts; start it
 * after the grid.
 */
public final class GridSearchIndexes implements SearchIndexes, AutoCloseable {

  private static final int BULK_MAX = 10_000;
  private static final long VISIBLE_MS = 10_000;
  private static final long STATE_MS = 2_000;
  private static final Future<List<Long>> NOTHING = CompletableFuture.completedFuture(List.of());

  private final Cluster cluster;
  private final IndexCatalog catalog;
  private final IndexReplicas replicas;
  private final SearchPool pool;
  private final SearchScatter scatter;
  private final Map<IndexReplicas.Address, IndexWrites> writes = new ConcurrentHashMap<>();
  private final ExecutorService writers = Executors.newVirtualThreadPerTaskExecutor();
  private final Timer searchTime;
  private final Timer writeTime;

  public GridSearchIndexes(
      Cluster cluster,
      Grid grid,
      Path dataFolder,
      MeterRegistry metrics,
      LongSupplier nanoTime,
      RandomGenerator random,
      IndexReplicas.Tuning tuning) {
    this.cluster = cluster;
    this.catalog = new IndexCatalog(cluster.registry(), grid, random);
    this.replicas =
        new IndexReplicas(
            cluster,
            catalog,
            dataFolder.toAbsolutePath().normalize().resolve("data").resolve("index"),
            tuning,
            nanoTime);
    this.pool = new SearchPool();
    this.scatter = new SearchScatter(cluster, grid, replicas, pool, metrics, nanoTime);
    this.searchTime = metrics.timer("flotilla.search");
    this.writeTime = metrics.timer("flotilla.index.write");
    metrics.gauge("flotilla.index.replicas", replicas, IndexReplicas::count);
    cluster.addService(new IndexShardService(catalog, replicas, pool));
  }

  public void start() {
    replicas.start();
  }

  @Override
  public List<String> names() {
    return catalog.names();
  }

  @Override
  public SearchIndex index(String name) {
    return new GridIndex(Names.check("an index", name));
  }

  /** One index, named, which may not exist yet. */
  private final class GridIndex implements SearchIndex {

    private final String name;

    GridIndex(String name) {
      this.name = name;
    }

    @Override
    public String name() {
      return name;
    }

    @Override
    public void create(IndexSettings settings) {
      IndexCatalog.Known made =
          catalog
              .create(name, settings)
              .orElseThrow(
                  () ->
                      new FlotillaException(
                          Code.CONFLICT,
                          "index " + name + " is there already",
                          "Remove it first, or take another name."));
      made.store().ensure();
    }

    @Override
    public void drop() {
      IndexCatalog.Known gone =
          catalog
              .remove(name)
              .orElseThrow(
                  () -> new FlotillaException(Code.NOT_FOUND, "there is no index " + name, ""));
      writes.keySet().removeIf(address -> address.generation().equals(gone.generation()));
      gone.store().destroy();
    }

    @Override
    public IndexSettings settings() {
      return catalog.require(name).settings();
    }

    @Override
    public List<Receipt> put(List<IndexDocument> documents, Visibility visibility) {
      if (documents.size() > BULK_MAX) {
        throw new FlotillaException(
            Code.TOO_LARGE,
            "more than " + BULK_MAX + " documents at once",
            "Send fewer at a time.");
      }
      if (documents.isEmpty()) {
        throw new FlotillaException(
            Code.INVALID, "there are no documents to store in index " + name, "");
      }
      List<IndexStore.Write> stored = new ArrayList<>(documents.size());
      for (IndexDocument document : documents) {
        if (document.isEmpty()) {
          throw new FlotillaException(
              Code.INVALID,
              "document " + document.id() + " is empty",
              "Give it text, a vector or fields.");
        }
        byte[] json = Json.write(document.toJson());
        if (json.length > IndexDocument.BYTES_MAX) {
          throw new FlotillaException(
              Code.TOO_LARGE,
              "document "
                  + document.id()
                  + " has "
                  + json.length
                  + " bytes, more than "
                  + IndexDocument.BYTES_MAX,
              "Cut it into parts.");
        }
        stored.add(new IndexStore.Write(document.id(), Optional.of(json)));
      }
      IndexCatalog.Known index = withFieldsOf(made(), documents);
      return write(index, stored, visibility);
    }

    private IndexCatalog.Known made() {
      Optional<IndexCatalog.Known> known = catalog.find(name);
      if (known.isEmpty()) {
        var _ = catalog.create(name, IndexSettings.DEFAULTS);
      }
      return catalog.require(name);
    }

    /** Agrees with the cluster on the types of fields that are new. */
    private IndexCatalog.Known withFieldsOf(
        IndexCatalog.Known index, List<IndexDocument> documents) {
      IndexSettings wanted = extended(index.schema(), documents);
      return wanted.equals(index.settings())
          ? index
          : catalog.update(name, now -> extended(new IndexSchema(now), documents));
    }

    private static IndexSettings extended(IndexSchema schema, List<IndexDocument> documents) {
      IndexSchema now = schema;
      for (IndexDocument document : documents) {
        IndexSettings wanted = now.with(document);
        if (!wanted.equals(now.settings())) {
          now = new IndexSchema(wanted);
        }
      }
      return now.settings();
    }

    @Override
    public List<Receipt> delete(List<String> ids, Visibility visibility) {
      if (ids.size() > BULK_MAX) {
        throw new FlotillaException(
            Code.TOO_LARGE,
            "more than " + BULK_MAX + " documents at once",
            "Send fewer at a time.");
      }
      return write(
              catalog.require(name),
              ids.stream().map(id -> new IndexStore.Write(id, Optional.empty())).toList(),
              visibility)
          .stream()
          .filter(receipt -> receipt.sequence() > 0)
          .toList();
    }

    private List<Receipt> write(
        IndexCatalog.Known index, List<IndexStore.Write> all, Visibility visibility) {
      long startNs = System.nanoTime();
      index.store().ensure();
      Map<Integer, List<Integer>> byShard = new TreeMap<>();
      for (int i = 0; i < all.size(); i++) {
        byShard
            .computeIfAbsent(
                SearchPlacement.shardOf(all.get(i).id(), index.settings().shards()),
                shard -> new ArrayList<>())
            .add(i);
      }
      Receipt[] receipts = new Receipt[all.size()];
      Map<Integer, Long> last = new HashMap<>();
      boolean alone = byShard.size() == 1 || TransactionScope.current().isPresent();
      Map<Integer, Future<List<Long>>> running = new TreeMap<>();
      byShard.forEach(
          (shard, places) -> {
            List<IndexStore.Write> mine = places.stream().map(all::get).toList();
            running.put(
                shard,
                alone
                    ? CompletableFuture.completedFuture(writeShard(index, shard, mine, visibility))
                    : writers.submit(() -> writeShard(index, shard, mine, visibility)));
          });
      byShard.forEach(
          (shard, places) -> {
            List<Long> sequences = sequences(running.getOrDefault(shard, NOTHING));
            for (int i = 0; i < places.size(); i++) {
              int place = places.get(i);
              receipts[place] = new Receipt(all.get(place).id(), shard, sequences.get(i), false);
              last.merge(shard, sequences.get(i), Math::max);
            }
          });
      writeTime.record(System.nanoTime() - startNs, TimeUnit.NANOSECONDS);
      if (visibility == Visibility.SEARCHABLE) {
        long deadlineNs = System.nanoTime() + VISIBLE_MS * 1_000_000;
        Map<Integer, Boolean> shown = new HashMap<>();
        last.forEach(
            (shard, sequence) -> shown.put(shard, isShown(index, shard, sequence, deadlineNs)));
        for (int i = 0; i < receipts.length; i++) {
          Receipt one = receipts[i];
          receipts[i] =
              new Receipt(
                  one.id(), one.shard(), one.sequence(), shown.getOrDefault(one.shard(), false));
        }
      }
      return List.of(receipts);
    }

    private List<Long> writeShard(
        IndexCatalog.Known index, int shard, List<IndexStore.Write> all, Visibility visibility) {
      return TransactionScope.current().isPresent()
          ? inTransaction(index, shard, all, visibility)
          : writes(index, shard).write(all);
    }

    private static List<Long> sequences(Future<List<Long>> running) {
      try {
        return running.get();
      } catch (ExecutionException e) {
        throw e.getCause() instanceof RuntimeException error
            ? error
            : new IllegalStateException("a write failed", e.getCause());
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new FlotillaException(
            Code.OUTCOME_UNKNOWN, "interrupted while writing", "Look whether it was done.", e);
      }
    }

    /** Takes part in the caller's transaction, alone: what others gathered is not its business. */
    private List<Long> inTransaction(
        IndexCatalog.Known index, int shard, List<IndexStore.Write> all, Visibility visibility) {
      if (visibility == Visibility.SEARCHABLE) {
        throw new FlotillaException(
            Code.INVALID,
            "inside a transaction nothing can be found before it commits",
            "Write without waiting.");
      }
      TransactionScope.current().ifPresent(scope -> scope.step("index " + name + ": write"));
      return index.store().write(shard, all);
    }

    private IndexWrites writes(IndexCatalog.Known index, int shard) {
      return writes.computeIfAbsent(
          new IndexReplicas.Address(name, index.generation(), shard),
          address -> new IndexWrites(index.store(), shard));
    }

    /**
     * Waits until every replica that answers searches shows the sequence. A shard with no ready
     * replica yet is waited for; one that cannot be reached answers no search either.
     */
    private boolean isShown(IndexCatalog.Known index, int shard, long sequence, long deadlineNs) {
      List<String> waiting = new ArrayList<>(replicas.placed(index, shard));
      int shown = 0;
      while (!waiting.isEmpty() && System.nanoTime() < deadlineNs) {
        List<String> again = new ArrayList<>();
        for (String node : waiting) {
          long leftMs = Math.max(1, (deadlineNs - System.nanoTime()) / 1_000_000);
          switch (isShownOn(node, index, shard, sequence, leftMs)) {
            case SHOWN -> shown++;
            case NOT_YET -> again.add(node);
            case AWAY -> {}
          }
        }
        waiting = again;
        if (!waiting.isEmpty()) {
          pause();
        }
      }
      return shown > 0 && waiting.isEmpty();
    }

    private static void pause() {
      try {
        Thread.sleep(20);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new FlotillaException(Code.FAILED, "interrupted", "", e);
      }
    }

    private Shown isShownOn(
        String node, IndexCatalog.Known index, int shard, long sequence, long leftMs) {
      try {
        if (node.equals(cluster.self())) {
          return replicas.await(name, index.generation(), shard, sequence, leftMs)
              ? Shown.SHOWN
              : Shown.NOT_YET;
        }
        ShardState state =
            IndexShardsGrpc.newBlockingStub(cluster.channel(node))
                .withDeadlineAfter(leftMs + 200, TimeUnit.MILLISECONDS)
                .await(
                    ShardAwaitRequest.newBuilder()
                        .setAddress(IndexReplicas.message(index, shard))
                        .setSequence(sequence)
                        .setTimeoutMs((int) leftMs)
                        .build());
        return state.getSearchable() >= sequence ? Shown.SHOWN : Shown.NOT_YET;
      } catch (StatusRuntimeException e) {
        // It answered that it has no replica yet, or it does not answer at all.
        String said = String.valueOf(e.getStatus().getDescription());
        return said.contains("has no replica") ? Shown.NOT_YET : Shown.AWAY;
      } catch (FlotillaException e) {
        return Shown.NOT_YET;
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        return Shown.AWAY;
      }
    }

    @Override
    public Optional<Stored> document(String id) {
      IndexCatalog.Known index = catalog.require(name);
      index.store().ensure();
      int bytes = id.getBytes(StandardCharsets.UTF_8).length;
      return bytes == 0 || bytes > IndexDocument.ID_BYTES_MAX
          ? Optional.empty()
          : index.store().read(SearchPlacement.shardOf(id, index.settings().shards()), id);
    }

    @Override
    public SearchAnswer search(SearchRequest request) {
      long startNs = System.nanoTime();
      SearchAnswer answer = scatter.search(knowing(request), request);
      searchTime.record(System.nanoTime() - startNs, TimeUnit.NANOSECONDS);
      return answer;
    }

    /** The index, if it has what is asked for, as far as the whole cluster knows. */
    private IndexCatalog.Known knowing(SearchRequest request) {
      IndexCatalog.Known index = catalog.require(name);
      try {
        SearchPlan.checkKnown(index.schema(), request);
        return index;
      } catch (FlotillaException unknown) {
        try {
          cluster.registry().sync();
        } catch (FlotillaException cutOff) {
          throw unknown;
        }
        IndexCatalog.Known now = catalog.require(name);
        SearchPlan.checkKnown(now.schema(), request);
        return now;
      }
    }

    @Override
    public Stats stats() {
      IndexCatalog.Known index = catalog.require(name);
      index.store().ensure();
      List<ShardStats> shards = new ArrayList<>();
      long documents = 0;
      for (int shard = 0; shard < index.settings().shards(); shard++) {
        List<ReplicaStats> copies = new ArrayList<>();
        for (String node : replicas.placed(index, shard)) {
          copies.add(stateOf(node, index, shard));
        }
        long most = copies.stream().mapToLong(ReplicaStats::documents).max().orElse(0);
        shards.add(new ShardStats(shard, index.store().last(shard), most, copies));
        documents += most;
      }
      return new Stats(name, index.settings(), documents, shards);
    }

    private ReplicaStats stateOf(String node, IndexCatalog.Known index, int shard) {
      try {
        if (node.equals(cluster.self())) {
          return replicas.require(name, index.generation(), shard).stats(node);
        }
        ShardState state =
            IndexShardsGrpc.newBlockingStub(cluster.channel(node))
                .withDeadlineAfter(STATE_MS, TimeUnit.MILLISECONDS)
                .state(IndexReplicas.message(index, shard));
        return new ReplicaStats(
            node,
            state.getState(),
            state.getSearchable(),
            state.getDocuments(),
            state.getBytes(),
            state.getSegments());
      } catch (StatusRuntimeException | FlotillaException e) {
        return new ReplicaStats(node, String.valueOf(e.getMessage()), 0, 0, 0, 0);
      }
    }
  }

  private enum Shown {
    SHOWN,
    NOT_YET,
    AWAY
  }

  @Override
  public void close() {
    writers.shutdown();
    scatter.close();
    replicas.close();
    pool.close();
  }
}
