package dev.flotilla.data.jobs;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.google.protobuf.ByteString;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.data.proto.JobTasksGrpc;
import dev.flotilla.data.proto.TaskReply;
import dev.flotilla.data.proto.TaskRequest;
import io.grpc.Context;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.RejectedExecutionException;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Does tasks on this node, on as many platform threads as it has cores. */
final class JobWorker extends JobTasksGrpc.JobTasksImplBase {

  private static final Logger log = LoggerFactory.getLogger(JobWorker.class);

  /** What a task may emit for one bucket, as JSON. */
  static final int OUTPUT_BYTES_MAX = 8 << 20;

  private final Map<String, JobDefinition> definitions;
  private final JobDefinition.Context context;
  private final JobStore store;
  private final ExecutorService cores =
      Executors.newFixedThreadPool(
          Runtime.getRuntime().availableProcessors(),
          Thread.ofPlatform().daemon().name("job-task-", 0).factory());

  JobWorker(Map<String, JobDefinition> definitions, JobDefinition.Context context, JobStore store) {
    this.definitions = definitions;
    this.context = context;
    this.store = store;
  }

  @Override
  public void run(TaskRequest request, StreamObserver<TaskReply> reply) {
    Future<TaskReply> work;
    try {
      work = cores.submit(() -> perform(request));
    } catch (RejectedExecutionException e) {
      reply.onError(io.grpc.Status.UNAVAILABLE.asRuntimeException()); // this node stops
      return;
    }
    Context.current().addListener(ended -> work.cancel(true), Runnable::run);
    try {
      reply.onNext(work.get());
      reply.onCompleted();
    } catch (ExecutionException e) {
      reply.onError(io.grpc.Status.INTERNAL.withCause(e).asRuntimeException());
    } catch (InterruptedException | java.util.concurrent.CancellationException e) {
      reply.onError(io.grpc.Status.CANCELLED.asRuntimeException());
    }
  }

  private TaskReply perform(TaskRequest request) throws InterruptedException {
    try {
      Map<String, JsonNode> rows = new TreeMap<>();
      JobDefinition definition =
          Optional.ofNullable(definitions.get(request.getJob()))
              .orElseThrow(
                  () ->
                      new FlotillaException(
                          Code.UNAVAILABLE,
                          "node " + context.cluster().self() + " has no job " + request.getJob(),
                          "Run the same version on all nodes."));
      if (request.getBucket() < 0) {
        JsonNode payload = Json.read(request.getPayload().toByteArray(), JsonNode.class);
        definition.map(context, payload, (key, value) -> rows.merge(key, value, definition::merge));
        return split(rows, request.getBuckets());
      }
      for (byte[] output :
          store.bucket(request.getJobId(), request.getMapsList(), request.getBucket())) {
        Json.read(output, JsonNode.class)
            .properties()
            .forEach(e -> rows.merge(e.getKey(), e.getValue(), definition::merge));
      }
      return split(rows, 1);
    } catch (FlotillaException e) {
      return failure(e.code(), String.valueOf(e.getMessage()), e.remedy());
    } catch (RuntimeException e) {
      log.warn("task {} of job {} failed", request.getTask(), request.getJobId(), e);
      return failure(
          Code.FAILED,
          "task " + request.getTask() + " failed on node " + context.cluster().self() + ": " + e,
          "Mend the job's code, or give it another input; that node's log has the whole error.");
    }
  }

  private static TaskReply failure(Code code, String message, String remedy) {
    return TaskReply.newBuilder()
        .setErrorCode(code.name())
        .setError(message)
        .setRemedy(remedy)
        .build();
  }

  private static TaskReply split(Map<String, JsonNode> rows, int buckets) {
    List<ObjectNode> parts = new ArrayList<>();
    for (int i = 0; i < buckets; i++) {
      parts.add(Json.MAPPER.createObjectNode());
    }
    rows.forEach((key, value) -> parts.get(Math.floorMod(spread(key), buckets)).set(key, value));
    TaskReply.Builder reply = TaskReply.newBuilder();
    for (ObjectNode part : parts) {
      byte[] json = Json.write(part);
      if (json.length > OUTPUT_BYTES_MAX) {
        throw new FlotillaException(
            Code.TOO_LARGE,
            "a task emits " + json.length + " bytes for one bucket, of " + OUTPUT_BYTES_MAX,
            "Cut the input into smaller tasks (split_bytes).");
      }
      reply.addOutputs(ByteString.copyFrom(json));
    }
    return reply.build();
  }

  private static int spread(String key) {
    return (key.hashCode() * 0x9E3779B1) >>> 1;
  }

  void close() {
    cores.shutdownNow();
  }
}
