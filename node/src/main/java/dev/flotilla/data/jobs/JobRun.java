package dev.flotilla.data.jobs;

import com.fasterxml.jackson.databind.JsonNode;
import com.google.protobuf.ByteString;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.Fence;
import dev.flotilla.cluster.Lease;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.data.jobs.JobStore.JobRecord;
import dev.flotilla.data.proto.JobTasksGrpc;
import dev.flotilla.data.proto.TaskReply;
import dev.flotilla.data.proto.TaskRequest;
import io.grpc.Context;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.LongSupplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The coordination of one job, by the node that holds the job's lock.
 *
 * <p>All that must outlive it stands in the grid: the plan, and each task's result, written under
 * the lock's fencing token, the first one winning. So another coordinator goes on where this one
 * died, and one that was only thought dead can write nothing more.
 */
final class JobRun {

  private static final Logger log = LoggerFactory.getLogger(JobRun.class);
  private static final long TICK_MS = 250;
  private static final long SLOW_NS = TimeUnit.MILLISECONDS.toNanos(1500);
  private static final int FAILURES_MAX = 3;
  private static final int BUCKETS_MAX = 16;
  private static final int NODE_TASKS = Runtime.getRuntime().availableProcessors();

  /** What became of one attempt. */
  private record Ended(String task, Running attempt, Optional<FlotillaException> failure) {}

  /** One attempt. */
  private record Running(String node, long sinceNs, Context.CancellableContext call) {}

  private final Cluster cluster;
  private final JobStore store;
  private final JobDefinition definition;
  private final JobDefinition.Context context;
  private final Lease lease;
  private final LongSupplier nanoTime;
  private final int setbacksMax;
  private final BlockingQueue<Ended> ended = new LinkedBlockingQueue<>();
  private final AtomicInteger attempts = new AtomicInteger();
  private int copies;

  JobRun(
      Cluster cluster,
      JobStore store,
      JobDefinition definition,
      JobDefinition.Context context,
      Lease lease,
      LongSupplier nanoTime,
      int setbacksMax) {
    this.cluster = cluster;
    this.store = store;
    this.definition = definition;
    this.context = context;
    this.lease = lease;
    this.nanoTime = nanoTime;
    this.setbacksMax = setbacksMax;
  }

  /**
   * Returns when the job has ended, or this node is no longer its coordinator.
   *
   * @throws FlotillaException if the grid did not take it, which is to be tried again a while later
   */
  void run(JobRecord submitted) throws InterruptedException {
    JobRecord job = submitted;
    try {
      job = plan(job);
      List<JobDefinition.Task> reduces = new ArrayList<>();
      for (int i = 0; i < job.buckets(); i++) {
        reduces.add(
            new JobDefinition.Task(
                JobStore.reduceName(i), Json.MAPPER.nullNode(), List.of(), false));
      }
      if (phase(job, job.plan()) && phase(job, reduces)) {
        long rows = store.rowCount(job.id());
        job = finish(job, JobStore.DONE, "", rows);
      }
    } catch (FlotillaException e) {
      if (!lease.held()) {
        return;
      }
      if (isPassing(e)) {
        job = setBack(job, e);
        if (!job.ended()) {
          throw e;
        }
        return;
      }
      job = finish(job, JobStore.FAILED, e.explanation(), 0);
    }
    log.info("job {} ({}) is {} {}", job.id(), job.job(), job.state(), job.reason());
  }

  private static boolean isPassing(FlotillaException e) {
    return switch (e.code()) {
      case NO_MAJORITY, OUTCOME_UNKNOWN, UNAVAILABLE, BUSY -> true;
      default -> false;
    };
  }

  /**
   * Counts that it broke off, and gives the job up where that has been so too often with nothing
   * done. While not even this can be written nothing is counted: the cluster is down, not the job.
   */
  private JobRecord setBack(JobRecord job, FlotillaException why) {
    JobRecord after =
        store.update(
            job.id(),
            Optional.of(fence()),
            j -> {
              int setbacks = j.setbacks() + 1;
              return setbacks < setbacksMax
                  ? counted(j, j.state(), "", j.done(), 0, setbacks)
                  : counted(
                      j,
                      JobStore.FAILED,
                      "given up after " + setbacks + " tries in a row: " + why.explanation(),
                      j.done(),
                      0,
                      setbacks);
            });
    if (after.ended()) {
      log.warn("job {} ({}) is {}: {}", job.id(), job.job(), after.state(), after.reason());
      store.deleteOutputs(after);
    }
    return after;
  }

  private JobRecord finish(JobRecord job, String state, String reason, long rows) {
    JobRecord after =
        store.update(
            job.id(),
            Optional.of(fence()),
            j ->
                counted(j, state, reason, state.equals(JobStore.DONE) ? total(j) : j.done(), rows));
    store.deleteOutputs(after);
    return after;
  }

  private static int total(JobRecord job) {
    return job.plan().size() + job.buckets();
  }

  /** What has got further is no longer set back. */
  private JobRecord counted(JobRecord j, String state, String reason, int done, long rows) {
    return counted(j, state, reason, done, rows, done > j.done() ? 0 : j.setbacks());
  }

  private JobRecord counted(
      JobRecord j, String state, String reason, int done, long rows, int setbacks) {
    int started = attempts.getAndSet(0);
    int copied = copies;
    copies = 0;
    return new JobRecord(
        j.id(),
        j.job(),
        j.input(),
        state,
        reason,
        cluster.self(),
        j.plan(),
        j.buckets(),
        done,
        j.attempts() + started,
        j.copies() + copied,
        rows,
        setbacks,
        j.createdAtMs(),
        System.currentTimeMillis());
  }

  private Fence fence() {
    return lease.fence();
  }

  private JobRecord plan(JobRecord job) {
    List<JobDefinition.Task> tasks =
        job.plan().isEmpty() ? definition.plan(context, job.input()) : job.plan();
    int buckets = Math.clamp(tasks.size(), 1, BUCKETS_MAX);
    return store.update(
        job.id(),
        Optional.of(fence()),
        j ->
            new JobRecord(
                j.id(),
                j.job(),
                j.input(),
                JobStore.RUNNING,
                "",
                cluster.self(),
                tasks,
                j.plan().isEmpty() ? buckets : j.buckets(),
                j.done(),
                j.attempts(),
                j.copies(),
                0,
                j.setbacks(),
                j.createdAtMs(),
                System.currentTimeMillis()));
  }

  /**
   * Brings all of these tasks to their end.
   *
   * @return false if the job was cancelled, or is no longer this node's
   */
  private boolean phase(JobRecord job, List<JobDefinition.Task> tasks) throws InterruptedException {
    Map<String, JobDefinition.Task> open = new LinkedHashMap<>();
    Set<String> done = store.done(job);
    tasks.stream().filter(t -> !done.contains(t.name())).forEach(t -> open.put(t.name(), t));
    int doneBefore = done.size();
    Map<String, List<Running>> running = new HashMap<>();
    Map<String, List<String>> failedOn = new HashMap<>();
    Map<String, Integer> failures = new HashMap<>();
    List<Long> takenNs = new ArrayList<>();
    int of = open.size();
    long toldNs = nanoTime.getAsLong();
    boolean untold = doneBefore > job.done();
    try {
      while (!open.isEmpty()) {
        if (!lease.held()) {
          return false;
        }
        for (JobSchedule.Start start : schedule(open, running, failedOn, takenNs)) {
          start(job, Objects.requireNonNull(open.get(start.task())), start, running);
        }
        Ended one = ended.poll(TICK_MS, TimeUnit.MILLISECONDS);
        if (one != null) {
          List<Running> others = running.getOrDefault(one.task(), new ArrayList<>());
          others.remove(one.attempt());
          if (one.failure().isEmpty()) {
            if (open.remove(one.task()) != null) {
              takenNs.add(nanoTime.getAsLong() - one.attempt().sinceNs());
            }
            others.forEach(other -> other.call().cancel(null));
          } else if (open.containsKey(one.task())) {
            failedOn.computeIfAbsent(one.task(), t -> new ArrayList<>()).add(one.attempt().node());
            judge(one, failures);
          }
        }
        if (untold
            || nanoTime.getAsLong() - toldNs > TimeUnit.MILLISECONDS.toNanos(2 * TICK_MS)
            || open.isEmpty()) {
          untold = false;
          toldNs = nanoTime.getAsLong();
          int finished = doneBefore + of - open.size();
          JobRecord now =
              store.update(
                  job.id(),
                  Optional.of(fence()),
                  j -> counted(j, JobStore.RUNNING, "", finished, 0));
          if (now.ended()) {
            return false;
          }
        }
      }
      return true;
    } finally {
      running.values().forEach(list -> list.forEach(attempt -> attempt.call().cancel(null)));
    }
  }

  /** A dead node is no fault of the task; what a living one answers is, when it comes again. */
  private static void judge(Ended one, Map<String, Integer> failures) throws InterruptedException {
    FlotillaException failure = one.failure().orElseThrow();
    log.info("task {} on {}: {}", one.task(), one.attempt().node(), failure.getMessage());
    if (failure.code() == Code.INVALID
        || failure.code() == Code.TOO_LARGE
        || (!isAway(failure) && failures.merge(one.task(), 1, Integer::sum) >= FAILURES_MAX)) {
      throw failure;
    }
    Thread.sleep(50);
  }

  /** Whether the node did not answer. */
  private static boolean isAway(FlotillaException failure) {
    return failure.getCause() instanceof StatusRuntimeException status
        && (status.getStatus().getCode() == Status.Code.UNAVAILABLE
            || status.getStatus().getCode() == Status.Code.CANCELLED);
  }

  private List<JobSchedule.Start> schedule(
      Map<String, JobDefinition.Task> open,
      Map<String, List<Running>> running,
      Map<String, List<String>> failedOn,
      List<Long> takenNs) {
    Map<String, Integer> room = new TreeMap<>();
    for (NodeInfo node : cluster.nodes()) {
      if (node.state() == NodeInfo.State.UP) {
        room.put(node.id(), NODE_TASKS);
      }
    }
    running
        .values()
        .forEach(list -> list.forEach(a -> room.computeIfPresent(a.node(), (n, left) -> left - 1)));
    List<JobSchedule.Open> all = new ArrayList<>();
    open.forEach(
        (name, task) ->
            all.add(
                new JobSchedule.Open(
                    task,
                    failedOn.getOrDefault(name, List.of()),
                    running.getOrDefault(name, List.of()).stream()
                        .map(a -> new JobSchedule.Attempt(a.node(), a.sinceNs()))
                        .toList())));
    for (JobDefinition.Task task : open.values()) {
      if (task.bound() && task.nodes().stream().noneMatch(room::containsKey)) {
        throw new FlotillaException(
            Code.FAILED, "node " + task.nodes() + " is gone", "Run the job again without it.");
      }
    }
    return JobSchedule.next(all, room, takenNs, SLOW_NS, nanoTime.getAsLong());
  }

  private void start(
      JobRecord job,
      JobDefinition.Task task,
      JobSchedule.Start start,
      Map<String, List<Running>> running) {
    attempts.incrementAndGet();
    if (start.copy()) {
      copies++;
      log.info("job {}: {} is slow, a copy starts on {}", job.id(), task.name(), start.node());
    }
    Running attempt =
        new Running(start.node(), nanoTime.getAsLong(), Context.ROOT.withCancellation());
    running.computeIfAbsent(task.name(), t -> new ArrayList<>()).add(attempt);
    Thread.ofVirtual()
        .name("job-" + job.id())
        .start(
            () -> {
              Optional<FlotillaException> failure = Optional.empty();
              try {
                attempt.call().run(() -> attempt(job, task, start.node()));
              } catch (FlotillaException e) {
                failure = Optional.of(e);
              } catch (RuntimeException e) {
                failure =
                    Optional.of(
                        new FlotillaException(
                            e instanceof StatusRuntimeException ? Code.UNAVAILABLE : Code.FAILED,
                            String.valueOf(e.getMessage()),
                            "",
                            e));
              }
              ended.add(new Ended(task.name(), attempt, failure));
            });
  }

  private void attempt(JobRecord job, JobDefinition.Task task, String node) {
    boolean map = !task.name().startsWith("reduce-");
    int bucket = map ? -1 : Integer.parseInt(task.name().substring("reduce-".length()));
    TaskRequest.Builder request =
        TaskRequest.newBuilder()
            .setJobId(job.id())
            .setJob(job.job())
            .setTask(task.name())
            .setBucket(bucket)
            .setBuckets(job.buckets());
    if (map) {
      request.setPayload(ByteString.copyFrom(Json.write(task.payload())));
    } else {
      job.plan().forEach(each -> request.addMaps(each.name()));
    }
    TaskReply reply = JobTasksGrpc.newBlockingStub(cluster.channel(node)).run(request.build());
    if (!reply.getErrorCode().isEmpty()) {
      throw new FlotillaException(
          Code.valueOf(reply.getErrorCode()), reply.getError(), reply.getRemedy());
    }
    if (map) {
      store.putMap(
          job,
          task.name(),
          reply.getOutputsList().stream().map(ByteString::toByteArray).toList(),
          fence());
    } else {
      Map<String, JsonNode> rows = new TreeMap<>();
      Json.read(reply.getOutputs(0).toByteArray(), JsonNode.class)
          .properties()
          .forEach(e -> rows.put(e.getKey(), e.getValue()));
      store.putRows(job, bucket, rows, fence());
    }
  }
}
