package dev.flotilla.tensor;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Objects;
import java.util.regex.Pattern;
import org.bytedeco.javacpp.Loader;
import org.bytedeco.pytorch.global.torch;
import org.jspecify.annotations.Nullable;

/**
 * Products of small integer matrices on the processor's matrix unit (Intel AMX), through the
 * batch-reduced product of libtorch's oneDNN: a plain function on addresses, without a thread pool
 * of its own. Integers are exact, so which unit multiplied them changes no bit.
 *
 * <p>Java has no instruction for it. Where the unit or the function is missing, {@link #AVAILABLE}
 * is false and the vector kernels do the work. {@code -Dflotilla.matrix-unit=false} leaves it out.
 */
final class MatrixUnit {

  /** {@code at::native::cpublas::brgemm} and {@code at::cpu::init_amx} of the pinned libtorch. */
  private static final String PRODUCT = "_ZN2at6native7cpublas6brgemmEllllllbPKaS3_Pib";

  private static final String PERMISSION = "_ZN2at3cpu8init_amxEv";

  private static final @Nullable MethodHandle MULTIPLY = find();

  /** Whether it can be used here. */
  static final boolean AVAILABLE = MULTIPLY != null;

  private MatrixUnit() {}

  @SuppressWarnings("restricted") // the launcher grants native access
  private static @Nullable MethodHandle find() {
    if (!Boolean.parseBoolean(System.getProperty("flotilla.matrix-unit", "true"))
        || Kernels.lanes() < 16
        || !processorHasIt()) {
      return null;
    }
    try {
      Path loaded = Path.of(Loader.load(torch.class));
      SymbolLookup symbols =
          SymbolLookup.libraryLookup(loaded.resolveSibling("libtorch_cpu.so"), Arena.global());
      if (symbols.find(PRODUCT).isEmpty() || symbols.find(PERMISSION).isEmpty()) {
        return null;
      }
      Linker linker = Linker.nativeLinker();
      // Where the kernel refuses, the product would end the process.
      boolean allowed =
          (boolean)
              linker
                  .downcallHandle(
                      symbols.findOrThrow(PERMISSION),
                      FunctionDescriptor.of(ValueLayout.JAVA_BOOLEAN))
                  .invokeExact();
      return allowed
          ? linker.downcallHandle(
              symbols.findOrThrow(PRODUCT),
              FunctionDescriptor.ofVoid(
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_BOOLEAN,
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_BOOLEAN),
              // Microseconds at most: no safepoint waits for it.
              Linker.Option.critical(false))
          : null;
    } catch (Throwable e) {
      // No libtorch for this machine.
      return null;
    }
  }

  private static boolean processorHasIt() {
    try {
      return Pattern.compile("^flags\\s*:.*\\bamx_int8\\b", Pattern.MULTILINE)
          .matcher(Files.readString(Path.of("/proc/cpuinfo")))
          .find();
    } catch (IOException e) {
      return false; // not Linux
    }
  }

  /**
   * Overwrites {@code product} {@code [rows, 32]} with {@code left · right}.
   *
   * @param inner how many products a sum has, a multiple of 4
   * @param left address of {@code [rows, inner]} bytes
   * @param right address of {@code [inner / 4, 32, 4]} bytes
   * @param product address of ints
   */
  static void multiply(int rows, int inner, long left, long right, long product) {
    try {
      Objects.requireNonNull(MULTIPLY)
          .invokeExact(
              (long) rows,
              (long) PackedMatrix.TILE,
              (long) inner,
              (long) inner,
              (long) PackedMatrix.TILE,
              (long) PackedMatrix.TILE,
              false,
              left,
              right,
              product,
              true);
    } catch (Throwable e) {
      throw new IllegalStateException("the matrix unit failed", e);
    }
  }
}
