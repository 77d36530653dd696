package dev.flotilla.tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.util.ArrayDeque;
import java.util.List;
import java.util.function.IntUnaryOperator;
import java.util.function.UnaryOperator;
import java.util.stream.IntStream;

/**
 * The arithmetic of a decoder on this machine's vector unit, for serving: no gradients, weights
 * packed outside the heap.
 *
 * <p>A row's bits depend on nothing but the row, the weights and its position: see {@link Kernels}.
 * Driven by one thread at a time, which takes part in the work.
 */
public final class SimdOps implements Ops<Matrix, Weights>, AutoCloseable {

  private static final int ROPE_TABLES = 2;

  /** Elements that a thread works on at a time, element by element. */
  private static final int SPAN = 4096;

  /** What an element costs in multiplications: where it is added, and where it is a power of e. */
  private static final long PLAIN_WORK = 4;

  private static final long POWER_WORK = 32;

  private final Workers workers;
  private final Arena arena = Arena.ofShared();
  private final IntegerProducts integers;
  private final PlainProducts plain;
  private final PromptProducts prompts;
  private boolean[] promptRows = new boolean[0];
  private final ArrayDeque<RopeTable> ropeTables = new ArrayDeque<>();

  /**
   * @param threads how many threads compute, the caller's among them
   */
  public SimdOps(int threads) {
    workers = new Workers(threads);
    try {
      integers = new IntegerProducts(workers, arena);
      plain = new PlainProducts(workers, arena);
      prompts = new PromptProducts(workers, arena);
    } catch (RuntimeException | Error e) {
      workers.close();
      arena.close();
      throw e;
    }
  }

  Workers workers() {
    return workers;
  }

  /** Whether products of few rows are done in machine code here. */
  public static boolean inMachineCode() {
    return MachineKernels.AVAILABLE;
  }

  /** Whether this machine has kernels made for a prompt's rows. */
  public static boolean promptsHaveTheirOwnKernels() {
    return PromptKernels.AVAILABLE;
  }

  /** Packs rows as {@link PackedMatrix#pack} does, shared out among the threads. */
  public PackedMatrix pack(
      WeightType type,
      int out,
      int in,
      MemorySegment source,
      IntUnaryOperator sourceRow,
      Arena weights) {
    return PackedMatrix.pack(type, out, in, source, sourceRow, weights, workers);
  }

  /**
   * Says which rows of the activations to come are a prompt's: where this machine has kernels made
   * for many rows, products of those go by them, and of the others never.
   *
   * @param rows one for each row, or none if no row is
   */
  public void promptRows(boolean[] rows) {
    promptRows = rows;
  }

  @Override
  public Matrix embed(Weights table, int[] tokens) {
    PackedMatrix packed = matrix(table);
    Matrix result = new Matrix(tokens.length, packed.in());
    for (int row = 0; row < tokens.length; row++) {
      packed.unpackRow(tokens[row], result.values(), row * packed.in());
    }
    return result;
  }

  @Override
  public Matrix linear(Matrix x, Weights weight) {
    PackedMatrix packed = matrix(weight);
    requireWidth(x, packed.in());
    UnaryOperator<Matrix> multiply =
        packed.type().integers()
            ? rows -> integers.multiply(rows, packed)
            : rows -> plain.multiply(rows, packed);
    return PromptKernels.take(packed)
        ? byRoutes(x, rows -> prompts.multiply(rows, packed), multiply)
        : multiply.apply(x);
  }

  @Override
  public Matrix feedForward(Matrix x, FeedForward<Weights> part, Gate gate) {
    FeedForward<PackedMatrix> packed =
        new FeedForward<>(matrix(part.gate()), matrix(part.up()), matrix(part.down()));
    requireWidth(x, packed.gate().in());
    if (PromptKernels.take(packed.gate())
        && PromptKernels.take(packed.up())
        && PromptKernels.take(packed.down())) {
      return byRoutes(
          x,
          rows -> prompts.feedForward(rows, packed, gate),
          rows -> Ops.super.feedForward(rows, part, gate));
    }
    return Ops.super.feedForward(x, part, gate);
  }

  /** Prompts' rows go by their kernels and the others by theirs. */
  private Matrix byRoutes(
      Matrix x, UnaryOperator<Matrix> byPrompts, UnaryOperator<Matrix> byOthers) {
    int[] prompt = rowsThatAre(true);
    if (prompt.length == 0) {
      return byOthers.apply(x);
    }
    if (prompt.length == x.rows()) {
      return byPrompts.apply(x);
    }
    int[] others = rowsThatAre(false);
    boolean[] all = promptRows;
    promptRows = new boolean[0];
    Matrix other = byOthers.apply(gathered(x, others));
    promptRows = all;
    Matrix part = byPrompts.apply(gathered(x, prompt));
    Matrix result = new Matrix(x.rows(), part.width());
    scatter(part, prompt, result);
    scatter(other, others, result);
    return result;
  }

  private int[] rowsThatAre(boolean prompt) {
    return IntStream.range(0, promptRows.length).filter(row -> promptRows[row] == prompt).toArray();
  }

  private static void scatter(Matrix part, int[] rows, Matrix result) {
    int width = part.width();
    for (int i = 0; i < rows.length; i++) {
      System.arraycopy(part.values(), i * width, result.values(), rows[i] * width, width);
    }
  }

  @Override
  public Matrix bias(Matrix x, Weights bias) {
    float[] terms = ((Gain) bias).values();
    requireWidth(x, terms.length);
    Matrix result = new Matrix(x.rows(), x.width());
    float[] in = x.values();
    float[] out = result.values();
    int width = terms.length;
    workers.each(
        x.rows(),
        PLAIN_WORK * out.length,
        (_, row) -> {
          for (int i = 0; i < width; i++) {
            out[row * width + i] = in[row * width + i] + terms[i];
          }
        });
    return result;
  }

  @Override
  public Matrix rmsNorm(Matrix x, Weights gain, float epsilon) {
    float[] factors = ((Gain) gain).values();
    int width = factors.length;
    if (x.width() % width != 0) {
      throw new IllegalArgumentException("runs of " + width + " wanted, got " + shape(x));
    }
    float[] in = x.values();
    Matrix result = new Matrix(x.rows(), x.width());
    float[] out = result.values();
    int inRow = x.width() / width;
    workers.each(
        x.rows(),
        PLAIN_WORK * out.length,
        (_, row) -> {
          for (int run = row * inRow; run < (row + 1) * inRow; run++) {
            int first = run * width;
            float mean = Kernels.sumOfSquares(in, first, width) / width;
            float scale = 1 / (float) Math.sqrt(mean + epsilon);
            for (int i = 0; i < width; i++) {
              out[first + i] = in[first + i] * scale * factors[i];
            }
          }
        });
    return result;
  }

  @Override
  public Matrix rope(Matrix x, Rope rope, int[] positions) {
    if (positions.length != x.rows() || x.width() % rope.headWidth() != 0) {
      throw new IllegalArgumentException(
          positions.length + " positions, head width " + rope.headWidth() + " for " + shape(x));
    }
    Matrix result = new Matrix(x.rows(), x.width());
    RopeTable table = table(rope, positions);
    workers.each(
        x.rows(),
        PLAIN_WORK * x.values().length,
        (_, row) -> table.rotate(row, x.values(), result.values(), x.width()));
    return result;
  }

  /** A model has one or two ropes; all layers of a step ask for the same positions. */
  private RopeTable table(Rope rope, int[] positions) {
    for (RopeTable table : ropeTables) {
      if (table.isFor(rope, positions)) {
        return table;
      }
    }
    if (ropeTables.size() == ROPE_TABLES) {
      ropeTables.removeFirst();
    }
    RopeTable table = new RopeTable(rope, positions.clone());
    ropeTables.addLast(table);
    return table;
  }

  @Override
  public Matrix swiGlu(Matrix gate, Matrix up) {
    return gated(Gate.SWIGLU, gate, up);
  }

  @Override
  public Matrix geGlu(Matrix gate, Matrix up) {
    return gated(Gate.GEGLU, gate, up);
  }

  private Matrix gated(Gate kind, Matrix gate, Matrix up) {
    requireSameShape(gate, up);
    Matrix result = new Matrix(gate.rows(), gate.width());
    spans(
        result.values().length,
        POWER_WORK,
        (first, end) -> Gates.apply(kind, gate.values(), up.values(), result.values(), first, end));
    return result;
  }

  @Override
  public Matrix add(Matrix a, Matrix b) {
    requireSameShape(a, b);
    Matrix result = new Matrix(a.rows(), a.width());
    float[] x = a.values();
    float[] y = b.values();
    float[] out = result.values();
    spans(
        out.length,
        PLAIN_WORK,
        (first, end) -> {
          for (int i = first; i < end; i++) {
            out[i] = x[i] + y[i];
          }
        });
    return result;
  }

  /** Some elements of a row of memory. */
  @FunctionalInterface
  private interface Span {
    void run(int first, int end);
  }

  private void spans(int count, long work, Span span) {
    workers.each(
        (count + SPAN - 1) / SPAN,
        work * count,
        (_, item) -> span.run(SPAN * item, Math.min(count, SPAN * (item + 1))));
  }

  @Override
  public Matrix scale(Matrix x, float factor) {
    Matrix result = new Matrix(x.rows(), x.width());
    float[] out = result.values();
    for (int i = 0; i < out.length; i++) {
      out[i] = x.values()[i] * factor;
    }
    return result;
  }

  @Override
  public Matrix softCap(Matrix x, float cap) {
    Matrix result = new Matrix(x.rows(), x.width(), x.values().clone());
    Kernels.softCap(result.values(), 0, result.values().length, 1, cap);
    return result;
  }

  /**
   * Rows are gathered by expert, so that an expert's weights are read once; each row's results are
   * added in the order of the experts' numbers, so its bits do not depend on the rows beside it.
   */
  @Override
  public Matrix mixture(Matrix x, Matrix scores, int used, List<FeedForward<Weights>> experts) {
    requireWidth(scores, experts.size());
    Matrix shares = shares(scores, used);
    Matrix result = new Matrix(x.rows(), x.width());
    boolean[] all = promptRows;
    for (int e = 0; e < experts.size(); e++) {
      int[] rows = rowsOf(shares, e);
      if (rows.length > 0) {
        promptRows = gathered(all, rows);
        Matrix outer = feedForward(gathered(x, rows), experts.get(e), Gate.SWIGLU);
        for (int i = 0; i < rows.length; i++) {
          float share = shares.values()[rows[i] * experts.size() + e];
          int to = rows[i] * x.width();
          for (int j = 0; j < x.width(); j++) {
            result.values()[to + j] += share * outer.values()[i * x.width() + j];
          }
        }
      }
    }
    promptRows = all;
    return result;
  }

  private static boolean[] gathered(boolean[] all, int[] rows) {
    boolean[] result = new boolean[all.length == 0 ? 0 : rows.length];
    for (int i = 0; i < result.length; i++) {
      result[i] = all[rows[i]];
    }
    return result;
  }

  /** Zero but for each row's highest scores, the earlier first among equals: their softmax. */
  private static Matrix shares(Matrix scores, int used) {
    int count = scores.width();
    Matrix shares = new Matrix(scores.rows(), count);
    int[] chosen = new int[used];
    float[] values = new float[used];
    for (int row = 0; row < scores.rows(); row++) {
      boolean[] taken = new boolean[count];
      for (int k = 0; k < used; k++) {
        int best = -1;
        for (int e = 0; e < count; e++) {
          if (!taken[e]
              && (best < 0
                  || scores.values()[row * count + e] > scores.values()[row * count + best])) {
            best = e;
          }
        }
        taken[best] = true;
        chosen[k] = best;
        values[k] = scores.values()[row * count + best];
      }
      Kernels.expAll(values, 0, used, 1, values[0]);
      float total = Kernels.sum(values, 0, used);
      for (int k = 0; k < used; k++) {
        shares.values()[row * count + chosen[k]] = values[k] / total;
      }
    }
    return shares;
  }

  private static int[] rowsOf(Matrix shares, int expert) {
    return IntStream.range(0, shares.rows())
        .filter(row -> shares.values()[row * shares.width() + expert] != 0)
        .toArray();
  }

  private static Matrix gathered(Matrix x, int[] rows) {
    Matrix result = new Matrix(rows.length, x.width());
    for (int i = 0; i < rows.length; i++) {
      System.arraycopy(x.values(), rows[i] * x.width(), result.values(), i * x.width(), x.width());
    }
    return result;
  }

  /** Ends the threads and frees the scratch memory. */
  @Override
  public void close() {
    workers.close();
    arena.close();
  }

  private static PackedMatrix matrix(Weights weights) {
    return (PackedMatrix) weights;
  }

  private static void requireWidth(Matrix x, int width) {
    if (x.width() != width) {
      throw new IllegalArgumentException("width " + width + " wanted, got " + shape(x));
    }
  }

  private static void requireSameShape(Matrix a, Matrix b) {
    if (a.rows() != b.rows() || a.width() != b.width()) {
      throw new IllegalArgumentException(shape(a) + " and " + shape(b));
    }
  }

  private static String shape(Matrix x) {
    return "[" + x.rows() + ", " + x.width() + "]";
  }
}
