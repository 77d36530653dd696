package dev.flotilla.serve;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import dev.flotilla.FlotillaException;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.Pooling;
import dev.flotilla.model.Rows;
import dev.flotilla.serve.proto.Draw;
import dev.flotilla.serve.proto.Export;
import dev.flotilla.serve.proto.Failed;
import dev.flotilla.serve.proto.Pool;
import dev.flotilla.serve.proto.Run;
import dev.flotilla.serve.proto.Step;
import dev.flotilla.serve.proto.StepResult;
import dev.flotilla.text.TokenMask;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.ShortBuffer;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;

/** Between our values and the messages that carry them. */
final class Wire {

  private Wire() {}

  /** F32, little-endian. */
  static ByteString bytes(float[] values) {
    ByteBuffer buffer = ByteBuffer.allocate(values.length * 4).order(ByteOrder.LITTLE_ENDIAN);
    buffer.asFloatBuffer().put(values);
    return UnsafeByteOperations.unsafeWrap(buffer);
  }

  static float[] floats(ByteString bytes) {
    float[] values = new float[bytes.size() / 4];
    bytes.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(values);
    return values;
  }

  /** Hidden states, as they travel. */
  static ByteString hidden(float[] states, WireType type) {
    return switch (type) {
      case F32 -> bytes(states);
      case BF16 -> {
        ByteBuffer buffer = ByteBuffer.allocate(states.length * 2).order(ByteOrder.LITTLE_ENDIAN);
        for (float state : states) {
          buffer.putShort(bfloat16(state));
        }
        yield UnsafeByteOperations.unsafeWrap(buffer.flip());
      }
    };
  }

  static float[] hidden(ByteString bytes, WireType type) {
    return switch (type) {
      case F32 -> floats(bytes);
      case BF16 -> {
        ShortBuffer shorts =
            bytes.asReadOnlyByteBuffer().order(ByteOrder.LITTLE_ENDIAN).asShortBuffer();
        float[] states = new float[shorts.remaining()];
        for (int i = 0; i < states.length; i++) {
          states[i] = Float.intBitsToFloat(shorts.get(i) << 16);
        }
        yield states;
      }
    };
  }

  /** The nearest one, the even one of two; what is not a number stays so. */
  static short bfloat16(float value) {
    int bits = Float.floatToRawIntBits(value);
    int odd = (bits >>> 16) & 1;
    return (short) (Float.isNaN(value) ? (bits >>> 16) | 0x40 : (bits + 0x7fff + odd) >>> 16);
  }

  /**
   * @param imports of the batch's, those that are for whoever gets it
   */
  static Step step(Batch batch, float[] hidden, List<BlockPart> imports, WireType type) {
    Step.Builder step =
        Step.newBuilder()
            .setNumber(batch.number())
            .setHidden(hidden(hidden, type))
            .addAllImports(parts(imports));
    for (Rows.Run run : batch.rows().runs()) {
      step.addRuns(
          Run.newBuilder()
              .setPosition(run.position())
              .setCount(run.count())
              .setPrompt(run.prompt())
              .addAllBlocks(() -> Arrays.stream(run.blocks()).iterator()));
    }
    for (Batch.Export export : batch.exports()) {
      step.addExports(Export.newBuilder().setBlock(export.block()).setId(export.id()));
    }
    for (long release : batch.releases()) {
      step.addReleases(release);
    }
    for (Batch.Draw draw : batch.draws()) {
      SamplingParameters sampling = draw.sampling();
      step.addDraws(
          Draw.newBuilder()
              .setRow(draw.row())
              .setPosition(draw.position())
              .setTemperature(sampling.temperature())
              .setTopP(sampling.topP())
              .setTopK(sampling.topK())
              .setSeed(sampling.seed())
              .setAllowed(
                  draw.allowed()
                      .map(mask -> UnsafeByteOperations.unsafeWrap(mask.toByteArray()))
                      .orElse(ByteString.EMPTY)));
    }
    for (Batch.Pool pool : batch.pools()) {
      step.addPools(
          Pool.newBuilder()
              .setSequence(pool.sequence())
              .setRow(pool.row())
              .setPosition(pool.position())
              .setRows(pool.rows())
              .setLength(pool.length())
              .setPooling(pool.pooling().name()));
    }
    return step.build();
  }

  static dev.flotilla.serve.proto.BlockPart part(BlockPart part) {
    return dev.flotilla.serve.proto.BlockPart.newBuilder()
        .setId(part.id())
        .setFirstLayer(part.layers().first())
        .setLayers(part.layers().count())
        .setContent(UnsafeByteOperations.unsafeWrap(part.content()))
        .build();
  }

  static BlockPart part(dev.flotilla.serve.proto.BlockPart part) {
    int first = part.getFirstLayer();
    return new BlockPart(
        part.getId(),
        new LayerRange(first, first + part.getLayers() - 1),
        part.getContent().asReadOnlyByteBuffer());
  }

  static List<dev.flotilla.serve.proto.BlockPart> parts(List<BlockPart> parts) {
    return parts.stream().map(Wire::part).toList();
  }

  static List<BlockPart> imports(Step step) {
    return step.getImportsList().stream().map(Wire::part).toList();
  }

  static List<Batch.Export> exports(Step step) {
    return step.getExportsList().stream()
        .map(e -> new Batch.Export(e.getBlock(), e.getId()))
        .toList();
  }

  static Rows rows(Step step) {
    return new Rows(
        step.getRunsList().stream()
            .map(
                run ->
                    new Rows.Run(
                        ints(run.getBlocksList()),
                        run.getPosition(),
                        run.getCount(),
                        run.getPrompt()))
            .toList());
  }

  static List<Batch.Pool> pools(Step step) {
    return step.getPoolsList().stream()
        .map(
            p ->
                new Batch.Pool(
                    p.getSequence(),
                    p.getRow(),
                    p.getPosition(),
                    p.getRows(),
                    p.getLength(),
                    Pooling.valueOf(p.getPooling())))
        .toList();
  }

  static List<float[]> vectors(StepResult result) {
    return result.getVectorsList().stream().map(Wire::floats).toList();
  }

  static List<Batch.Draw> draws(Step step) {
    return step.getDrawsList().stream()
        .map(
            d ->
                new Batch.Draw(
                    d.getRow(),
                    d.getPosition(),
                    new SamplingParameters(
                        d.getTemperature(), d.getTopP(), d.getTopK(), d.getSeed()),
                    Optional.of(d.getAllowed())
                        .filter(bits -> !bits.isEmpty())
                        .map(bits -> TokenMask.of(bits.toByteArray()))))
        .toList();
  }

  static long[] longs(List<Long> values) {
    return values.stream().mapToLong(Long::longValue).toArray();
  }

  static int[] ints(List<Integer> values) {
    return values.stream().mapToInt(Integer::intValue).toArray();
  }

  /** Of a field that is empty where there is none. */
  static Optional<String> grammar(String field) {
    return Optional.of(field).filter(source -> !source.isEmpty());
  }

  static Claim claim(String tenant, String priority) {
    return new Claim(tenant, Priority.of(priority).orElse(Priority.NORMAL));
  }

  static Failed failed(FlotillaException error) {
    return Failed.newBuilder()
        .setCode(error.code().name())
        .setMessage(String.valueOf(error.getMessage()))
        .setRemedy(error.remedy())
        .build();
  }

  static FlotillaException error(Failed failed) {
    FlotillaException.Code code;
    try {
      code = FlotillaException.Code.valueOf(failed.getCode());
    } catch (IllegalArgumentException e) {
      code = FlotillaException.Code.FAILED; // a newer version's
    }
    return new FlotillaException(code, failed.getMessage(), failed.getRemedy());
  }

  /** For calls whose errors travel as a status: code and text survive, the rest does not. */
  static StatusRuntimeException status(FlotillaException error) {
    Status.Code code =
        switch (error.code()) {
          case INVALID, TOO_LARGE -> Status.Code.INVALID_ARGUMENT;
          case UNAUTHENTICATED -> Status.Code.UNAUTHENTICATED;
          case NOT_FOUND -> Status.Code.NOT_FOUND;
          case CONFLICT -> Status.Code.ABORTED;
          case BUSY -> Status.Code.RESOURCE_EXHAUSTED;
          case UNAVAILABLE, NO_MAJORITY, OUTCOME_UNKNOWN -> Status.Code.UNAVAILABLE;
          case BAD_FILE, STORAGE, FAILED -> Status.Code.FAILED_PRECONDITION;
        };
    return Status.fromCode(code).withDescription(error.explanation()).asRuntimeException();
  }
}
