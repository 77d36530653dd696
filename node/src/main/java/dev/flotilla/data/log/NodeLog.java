package dev.flotilla.data.log;

import com.google.protobuf.ByteString;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.data.proto.NodeLogsGrpc;
import dev.flotilla.data.proto.SearchLogReply;
import dev.flotilla.data.proto.SearchLogRequest;
import dev.flotilla.data.proto.ShipLogReply;
import dev.flotilla.data.proto.ShipLogRequest;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import io.micrometer.core.instrument.Counter;
import io.micrometer.core.instrument.MeterRegistry;
import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.Predicate;
import org.apache.lucene.index.CorruptIndexException;
import org.apache.lucene.index.IndexFormatTooNewException;
import org.apache.lucene.index.IndexFormatTooOldException;
import org.apache.lucene.store.AlreadyClosedException;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * This node's log, and copies of other nodes'.
 *
 * <p>Whoever logs puts an entry into a bounded ring and goes on; if the ring is full, or the disk
 * cannot take it, the entry is dropped and counted, and the count is logged once there is room. One
 * thread numbers entries, appends them to segments and indexes them. Another ships them to two
 * peers, chosen by rendezvous hashing among the nodes: it asks a peer for the last number it has on
 * disk, and sends what follows, so that everything arrives at least once, and is kept once.
 */
public final class NodeLog extends NodeLogsGrpc.NodeLogsImplBase implements AutoCloseable {

  /**
   * Bounds.
   *
   * @param bytesPerNode of each node's log that is held here
   */
  public record Limits(
      int ringEntries, long segmentBytes, long bytesPerNode, long keepMs, int copies) {

    public static final Limits DEFAULTS =
        new Limits(8192, 4L << 20, 256L << 20, TimeUnit.DAYS.toMillis(14), 2);
  }

  /** An entry that has no number yet. */
  private record Event(
      long timeMs, Log.Level level, String logger, String message, Map<String, String> fields) {}

  private static final Logger log = LoggerFactory.getLogger(NodeLog.class);
  private static final int MESSAGE_CHARS_MAX = 16_384;
  private static final int BATCH = 512;
  private static final long SHIP_BYTES = 1L << 20;
  private static final long SHIP_TIMEOUT_MS = 5_000;
  private static final long SEARCH_TIMEOUT_MS = 3_000;
  private static final long TIDY_MS = 10_000;
  private static final int FOLLOWED = 1_000;
  private static final int REMEMBERED = 20_000;

  private final Cluster cluster;
  private final Path folder;
  private final Limits limits;
  private final InstantSource clock;
  private final ArrayBlockingQueue<Event> ring;
  private final AtomicLong dropped = new AtomicLong();
  private final Counter droppedEver;
  private final Counter written;
  private final Map<String, LogSegments> stores = new HashMap<>();
  private final Object diskLock = new Object();
  private final Thread writer;
  private final Thread shipper;
  private @Nullable LogIndex index;
  private volatile boolean closed;
  private long nextSeq;
  private long troubleLoggedMs;

  public NodeLog(
      Cluster cluster, Path folder, Limits limits, InstantSource clock, MeterRegistry metrics) {
    this.cluster = cluster;
    this.folder = folder;
    this.limits = limits;
    this.clock = clock;
    this.ring = new ArrayBlockingQueue<>(limits.ringEntries());
    this.droppedEver = Counter.builder("flotilla.log.dropped").register(metrics);
    this.written = Counter.builder("flotilla.log.entries").register(metrics);
    cluster.addService(this);
    this.writer = Thread.ofPlatform().name("node-log").daemon().unstarted(this::write);
    this.shipper = Thread.ofVirtual().name("node-log-shipper").unstarted(this::ship);
    writer.start();
  }

  /** Ships from now on. */
  public void start() {
    shipper.start();
  }

  /** Takes an entry, or counts it as dropped; never waits. */
  public void offer(
      long timeMs, Log.Level level, String logger, String message, Map<String, String> fields) {
    String text =
        message.length() > MESSAGE_CHARS_MAX ? message.substring(0, MESSAGE_CHARS_MAX) : message;
    if (!ring.offer(new Event(timeMs, level, logger, text, fields))) {
      dropped.incrementAndGet();
      droppedEver.increment();
    }
  }

  // Writing.

  private void write() {
    List<Event> batch = new ArrayList<>();
    long tidiedMs = clock.millis();
    while (!closed || !ring.isEmpty()) {
      try {
        Event first = ring.poll(200, TimeUnit.MILLISECONDS);
        if (first != null) {
          batch.add(first);
          ring.drainTo(batch, BATCH - 1);
          writeBatch(batch);
        }
        if (clock.millis() - tidiedMs > TIDY_MS) {
          tidiedMs = clock.millis();
          tidy();
        }
      } catch (InterruptedException e) {
        closed = true;
      } catch (IOException | AlreadyClosedException e) {
        dropped.addAndGet(batch.size());
        droppedEver.increment(batch.size());
        trouble(e);
      } catch (RuntimeException e) {
        trouble(e);
      }
      batch.clear();
    }
  }

  private void writeBatch(List<Event> batch) throws IOException {
    long lost = dropped.getAndSet(0);
    List<Event> events = new ArrayList<>(batch);
    try {
      if (lost > 0) {
        events.add(
            new Event(
                clock.millis(),
                Log.Level.WARN,
                NodeLog.class.getName(),
                lost + " log entries were dropped, for want of room in memory or on disk",
                Map.of("dropped", Long.toString(lost))));
      }
      synchronized (diskLock) {
        LogSegments own = store(cluster.self());
        if (nextSeq == 0) {
          // A node that lost its folder must not use numbers again that its peers have seen.
          nextSeq = own.lastSeq() > 0 ? own.lastSeq() + 1 : clock.millis() * 1000;
        }
        List<LogSegments.Line> lines = new ArrayList<>();
        for (Event event : events) {
          long seq = nextSeq + lines.size();
          lines.add(
              new LogSegments.Line(
                  seq,
                  Json.write(
                      new Log.Entry(
                          event.timeMs(),
                          cluster.self(),
                          seq,
                          event.level(),
                          event.logger(),
                          event.message(),
                          event.fields()))));
        }
        own.append(lines);
        nextSeq += lines.size();
        written.increment(lines.size());
        lost = 0;
        index(cluster.self(), lines);
      }
    } finally {
      dropped.addAndGet(lost);
    }
  }

  private LogSegments store(String node) throws IOException {
    LogSegments store = stores.get(node);
    if (store == null) {
      store = new LogSegments(folder.resolve("nodes").resolve(node), limits.segmentBytes());
      stores.put(node, store);
    }
    return store;
  }

  /** What cannot be indexed now is indexed later from the segments. */
  private void index(String node, List<LogSegments.Line> lines) {
    try {
      index().add(node, lines);
    } catch (IOException | AlreadyClosedException e) {
      closeIndex();
      trouble(e);
    }
  }

  /** Opens it if need be, and adds what it lacks. */
  private LogIndex index() throws IOException {
    LogIndex open = index;
    if (open == null) {
      open = openIndex();
      index = open;
      openStores();
      for (Map.Entry<String, LogSegments> each : stores.entrySet()) {
        while (open.indexed(each.getKey()) < each.getValue().lastSeq()) {
          long before = open.indexed(each.getKey());
          open.add(each.getKey(), each.getValue().after(before, SHIP_BYTES));
          if (open.indexed(each.getKey()) == before) {
            break;
          }
        }
      }
    }
    return open;
  }

  /** A damaged one is deleted: all of it is in the segments. */
  private LogIndex openIndex() throws IOException {
    Path place = folder.resolve("index");
    long firstArrival = clock.millis() * 1000;
    try {
      return new LogIndex(place, firstArrival);
    } catch (CorruptIndexException | IndexFormatTooNewException | IndexFormatTooOldException e) {
      log.warn("the log's index is damaged and is made anew: {}", e.toString());
      try (DirectoryStream<Path> files = Files.newDirectoryStream(place)) {
        for (Path file : files) {
          Files.delete(file);
        }
      }
      return new LogIndex(place, firstArrival);
    }
  }

  private void openStores() throws IOException {
    Path nodes = folder.resolve("nodes");
    if (!Files.isDirectory(nodes)) {
      return;
    }
    try (DirectoryStream<Path> folders = Files.newDirectoryStream(nodes)) {
      for (Path each : folders) {
        var _ = store(each.getFileName().toString());
      }
    }
  }

  private void closeIndex() {
    LogIndex open = index;
    index = null;
    if (open != null) {
      try {
        open.close();
      } catch (IOException | AlreadyClosedException e) {
        log.debug("the log's index did not close: {}", e.toString());
      }
    }
  }

  private void tidy() throws IOException {
    synchronized (diskLock) {
      LogIndex open = index();
      for (Map.Entry<String, LogSegments> each : stores.entrySet()) {
        each.getValue().force();
        if (each.getValue().retire(limits.bytesPerNode(), clock.millis() - limits.keepMs())) {
          open.forget(each.getKey(), each.getValue().firstSeq());
        }
      }
      open.commit();
    }
  }

  /** Once a minute at most: what a full disk has to say would fill the ring. */
  private void trouble(Exception e) {
    if (clock.millis() - troubleLoggedMs > 60_000) {
      troubleLoggedMs = clock.millis();
      log.warn(
          "the log cannot be written; entries are dropped, the node goes on: {}", e.toString());
    }
  }

  // Shipping.

  private void ship() {
    Map<String, Long> shipped = new HashMap<>();
    while (!closed) {
      boolean more = false;
      for (String peer : peers()) {
        more |= shipTo(peer, shipped);
      }
      try {
        if (!more) {
          Thread.sleep(250);
        }
      } catch (InterruptedException e) {
        return;
      }
    }
  }

  /** The nodes that keep copies of this node's log. */
  private List<String> peers() {
    return peers(
        cluster.self(), cluster.nodes().stream().map(NodeInfo::id).toList(), limits.copies());
  }

  static List<String> peers(String self, List<String> nodes, int copies) {
    return nodes.stream()
        .filter(node -> !node.equals(self))
        .sorted(Comparator.comparingInt(node -> java.util.Objects.hash(self, node) * 0x9E3779B9))
        .limit(copies)
        .toList();
  }

  private boolean shipTo(String peer, Map<String, Long> shipped) {
    try {
      LogSegments own;
      synchronized (diskLock) {
        own = store(cluster.self());
      }
      Long last = shipped.get(peer);
      if (last == null) {
        last = send(peer, List.of());
        shipped.put(peer, last);
      }
      if (last >= own.lastSeq()) {
        return false;
      }
      List<LogSegments.Line> lines = own.after(last, SHIP_BYTES);
      if (lines.isEmpty()) {
        return false;
      }
      shipped.put(peer, send(peer, lines));
      return shipped.get(peer) > last;
    } catch (IOException | StatusRuntimeException | FlotillaException e) {
      shipped.remove(peer);
      return false;
    } catch (RuntimeException e) {
      // Whatever it is, the others' logs and later lines must not wait for it.
      shipped.remove(peer);
      log.warn("the log could not be shipped to node {}, and is tried again", peer, e);
      return false;
    }
  }

  private long send(String peer, List<LogSegments.Line> lines) {
    ShipLogRequest.Builder request = ShipLogRequest.newBuilder().setNode(cluster.self());
    lines.forEach(line -> request.addEntries(ByteString.copyFrom(line.json())));
    return NodeLogsGrpc.newBlockingStub(cluster.channel(peer))
        .withDeadlineAfter(SHIP_TIMEOUT_MS, TimeUnit.MILLISECONDS)
        .ship(request.build())
        .getLastSeq();
  }

  @Override
  public void ship(ShipLogRequest request, StreamObserver<ShipLogReply> reply) {
    String node = request.getNode();
    if (cluster.nodes().stream().noneMatch(each -> each.id().equals(node))) {
      reply.onError(
          io.grpc.Status.INVALID_ARGUMENT.withDescription("no such node").asRuntimeException());
      return;
    }
    try {
      long last;
      synchronized (diskLock) {
        if (closed) {
          throw new IOException("closing");
        }
        LogSegments copy = store(node);
        List<LogSegments.Line> fresh = new ArrayList<>();
        for (ByteString each : request.getEntriesList()) {
          byte[] json = each.toByteArray();
          long seq = LogSegments.seq(json);
          long above = fresh.isEmpty() ? copy.lastSeq() : fresh.getLast().seq();
          if (seq > above) {
            fresh.add(new LogSegments.Line(seq, json));
          }
        }
        copy.append(fresh);
        copy.force();
        index(node, fresh);
        last = copy.lastSeq();
      }
      reply.onNext(ShipLogReply.newBuilder().setLastSeq(last).build());
      reply.onCompleted();
    } catch (IOException e) {
      trouble(e);
      reply.onError(
          io.grpc.Status.RESOURCE_EXHAUSTED.withDescription(e.toString()).asRuntimeException());
    }
  }

  /** This node's own lines after a number, for the export. */
  List<LogSegments.Line> own(long after, long bytesMax) throws IOException {
    LogSegments store;
    synchronized (diskLock) {
      store = store(cluster.self());
    }
    return store.after(after, bytesMax);
  }

  // Searching.

  @Override
  public void search(SearchLogRequest request, StreamObserver<SearchLogReply> reply) {
    SearchLogReply.Builder answer = SearchLogReply.newBuilder();
    try {
      LogIndex.Found found = searchHere(request);
      found.entries().forEach(entry -> answer.addEntries(ByteString.copyFrom(entry)));
      answer.setArrival(found.arrival());
    } catch (FlotillaException e) {
      answer.setError(e.explanation());
    } catch (IOException | AlreadyClosedException e) {
      reply.onError(io.grpc.Status.UNAVAILABLE.withDescription(e.toString()).asRuntimeException());
      return;
    }
    reply.onNext(answer.build());
    reply.onCompleted();
  }

  private LogIndex.Found searchHere(SearchLogRequest request) throws IOException {
    LogIndex open;
    synchronized (diskLock) {
      if (closed) {
        throw new IOException("closing");
      }
      open = index();
    }
    if (request.getFollow() && request.getAfterArrival() == 0) {
      return new LogIndex.Found(List.of(), open.arrival());
    }
    return open.search(
        new Log.Query(
            request.getText(),
            request.getFromMs() == 0 ? Optional.empty() : Optional.of(request.getFromMs()),
            request.getToMs() == 0 ? Optional.empty() : Optional.of(request.getToMs()),
            request.getNode().isEmpty() ? Optional.empty() : Optional.of(request.getNode()),
            request.getLevel().isEmpty()
                ? Optional.empty()
                : Optional.of(Log.Level.valueOf(request.getLevel())),
            request.getLimit()),
        request.getFollow(),
        request.getAfterArrival());
  }

  Log.Page search(Log.Query query) {
    if (query.limit() < 1 || query.limit() > 10_000) {
      throw new FlotillaException(
          Code.INVALID, "the limit is " + query.limit(), "Give one from 1 to 10000.");
    }
    SearchLogRequest request = request(query).setLimit(query.limit()).build();
    Set<String> missing = new LinkedHashSet<>();
    Map<String, Log.Entry> entries = new LinkedHashMap<>();
    ask(Map.of(), request, missing)
        .values()
        .forEach(reply -> decode(reply).forEach(e -> entries.put(e.node() + ":" + e.seq(), e)));
    List<Log.Entry> newest =
        entries.values().stream()
            .sorted(BY_TIME.reversed())
            .limit(query.limit())
            .sorted(BY_TIME)
            .toList();
    return new Log.Page(newest, !missing.isEmpty(), List.copyOf(missing));
  }

  private static final Comparator<Log.Entry> BY_TIME =
      Comparator.comparingLong(Log.Entry::timeMs)
          .thenComparing(Log.Entry::node)
          .thenComparingLong(Log.Entry::seq);

  void follow(Log.Query query, Predicate<Optional<Log.Entry>> onEntry) {
    SearchLogRequest request = request(query).setLimit(FOLLOWED).setFollow(true).build();
    Map<String, Long> places = new HashMap<>();
    LinkedHashMap<String, Boolean> seen =
        new LinkedHashMap<>() {
          @Override
          protected boolean removeEldestEntry(Map.Entry<String, Boolean> eldest) {
            return size() > REMEMBERED;
          }
        };
    long quietMs = 0;
    while (!closed) {
      List<Log.Entry> fresh = new ArrayList<>();
      ask(places, request, new LinkedHashSet<>())
          .forEach(
              (node, reply) -> {
                places.put(node, reply.getArrival());
                for (Log.Entry entry : decode(reply)) {
                  if (seen.put(entry.node() + ":" + entry.seq(), true) == null) {
                    fresh.add(entry);
                  }
                }
              });
      fresh.sort(BY_TIME);
      for (Log.Entry entry : fresh) {
        if (!onEntry.test(Optional.of(entry))) {
          return;
        }
      }
      quietMs = fresh.isEmpty() ? quietMs + 250 : 0;
      if (quietMs >= 1000) {
        quietMs = 0;
        if (!onEntry.test(Optional.empty())) {
          return;
        }
      }
      try {
        Thread.sleep(250);
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        return;
      }
    }
  }

  private SearchLogRequest.Builder request(Log.Query query) {
    SearchLogRequest.Builder request = SearchLogRequest.newBuilder().setText(query.text());
    query.fromMs().ifPresent(request::setFromMs);
    query.toMs().ifPresent(request::setToMs);
    query.level().ifPresent(level -> request.setLevel(level.name()));
    query
        .node()
        .ifPresent(
            name ->
                request.setNode(
                    cluster.nodes().stream()
                        .filter(node -> node.id().equals(name) || node.name().equals(name))
                        .map(NodeInfo::id)
                        .findFirst()
                        .orElseThrow(
                            () ->
                                new FlotillaException(
                                    Code.INVALID,
                                    "there is no node " + name,
                                    "See flotilla ps for the nodes."))));
    return request;
  }

  /** All nodes' answers, by node; those that do not answer are put into {@code missing}. */
  private Map<String, SearchLogReply> ask(
      Map<String, Long> places, SearchLogRequest request, Set<String> missing) {
    Map<String, Future<SearchLogReply>> asked = new LinkedHashMap<>();
    for (NodeInfo node : cluster.nodes()) {
      if (!node.id().equals(cluster.self())) {
        try {
          asked.put(
              node.id(),
              NodeLogsGrpc.newFutureStub(cluster.channel(node.id()))
                  .withDeadlineAfter(SEARCH_TIMEOUT_MS, TimeUnit.MILLISECONDS)
                  .search(
                      request.toBuilder()
                          .setAfterArrival(places.getOrDefault(node.id(), 0L))
                          .build()));
        } catch (FlotillaException e) {
          missing.add(node.id());
        }
      }
    }
    Map<String, SearchLogReply> replies = new LinkedHashMap<>();
    try {
      LogIndex.Found here =
          searchHere(
              request.toBuilder().setAfterArrival(places.getOrDefault(cluster.self(), 0L)).build());
      SearchLogReply.Builder own = SearchLogReply.newBuilder().setArrival(here.arrival());
      here.entries().forEach(entry -> own.addEntries(ByteString.copyFrom(entry)));
      replies.put(cluster.self(), own.build());
    } catch (IOException | AlreadyClosedException e) {
      missing.add(cluster.self());
    }
    for (Map.Entry<String, Future<SearchLogReply>> each : asked.entrySet()) {
      try {
        replies.put(each.getKey(), each.getValue().get());
      } catch (ExecutionException e) {
        missing.add(each.getKey());
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
        throw new FlotillaException(Code.FAILED, "interrupted", "", e);
      }
    }
    return replies;
  }

  private static List<Log.Entry> decode(SearchLogReply reply) {
    return reply.getEntriesList().stream()
        .map(each -> Json.read(each.toByteArray(), Log.Entry.class))
        .toList();
  }

  @Override
  public void close() {
    closed = true;
    shipper.interrupt();
    try {
      writer.join(2_000);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    synchronized (diskLock) {
      closeIndex();
      for (LogSegments store : stores.values()) {
        try {
          store.close();
        } catch (IOException e) {
          log.debug("a log did not close: {}", e.toString());
        }
      }
      stores.clear();
    }
  }
}
