package dev.flotilla.bench;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;

/**
 * A cable that can be bad: two network interfaces of this machine (TAP, Linux), between which this
 * process carries the frames, each way; some of them it loses, or carries late, so that they
 * overtake each other. For kernels without netem.
 */
@SuppressWarnings("restricted") // the launcher grants native access
final class Wire implements AutoCloseable {

  private static final int FRAME_BYTES_MAX = 2048;
  private static final int O_RDWR = 2;
  private static final long TUNSETIFF = 0x400454caL;
  private static final short IFF_TAP_NO_PI = 0x1002;
  private static final int NAME_BYTES = 16;
  private static final int REQUEST_BYTES = 40;

  private static final MethodHandle OPEN =
      function(
          "open",
          FunctionDescriptor.of(ValueLayout.JAVA_INT, ValueLayout.ADDRESS, ValueLayout.JAVA_INT),
          Linker.Option.firstVariadicArg(2));
  private static final MethodHandle IOCTL =
      function(
          "ioctl",
          FunctionDescriptor.of(
              ValueLayout.JAVA_INT,
              ValueLayout.JAVA_INT,
              ValueLayout.JAVA_LONG,
              ValueLayout.ADDRESS),
          Linker.Option.firstVariadicArg(2));
  private static final FunctionDescriptor TRANSFER =
      FunctionDescriptor.of(
          ValueLayout.JAVA_LONG, ValueLayout.JAVA_INT, ValueLayout.ADDRESS, ValueLayout.JAVA_LONG);
  private static final MethodHandle READ = function("read", TRANSFER);
  private static final MethodHandle WRITE = function("write", TRANSFER);
  private static final MethodHandle CLOSE =
      function("close", FunctionDescriptor.of(ValueLayout.JAVA_INT, ValueLayout.JAVA_INT));

  private final ScheduledExecutorService late =
      Executors.newSingleThreadScheduledExecutor(
          Thread.ofPlatform().daemon().name("wire-late").factory());
  private final int one;
  private final int other;
  private volatile double lossShare;
  private volatile long delayNs;

  private Wire(int one, int other) {
    this.one = one;
    this.other = other;
  }

  private static MethodHandle function(
      String name, FunctionDescriptor descriptor, Linker.Option... options) {
    Linker linker = Linker.nativeLinker();
    return linker.downcallHandle(linker.defaultLookup().findOrThrow(name), descriptor, options);
  }

  /**
   * Makes two interfaces and carries between them from now on, until they are deleted.
   *
   * @throws IOException if the system does not allow it
   */
  static Wire open(String one, String other) throws IOException {
    Wire wire = new Wire(tap(one), tap(other));
    Thread.ofPlatform().daemon().name(one).start(() -> wire.carry(wire.one, wire.other));
    Thread.ofPlatform().daemon().name(other).start(() -> wire.carry(wire.other, wire.one));
    return wire;
  }

  private static int tap(String name) throws IOException {
    try (Arena arena = Arena.ofConfined()) {
      int file = (int) OPEN.invokeExact(arena.allocateFrom("/dev/net/tun"), O_RDWR);
      MemorySegment request = arena.allocate(REQUEST_BYTES);
      byte[] bytes = name.getBytes(StandardCharsets.US_ASCII);
      MemorySegment.copy(bytes, 0, request, ValueLayout.JAVA_BYTE, 0, bytes.length);
      request.set(ValueLayout.JAVA_SHORT, NAME_BYTES, IFF_TAP_NO_PI);
      if (file < 0 || (int) IOCTL.invokeExact(file, TUNSETIFF, request) < 0) {
        throw new IOException("no network interface " + name + " through /dev/net/tun");
      }
      return file;
    } catch (IOException | RuntimeException | Error e) {
      throw e;
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }

  /** From now on it loses that share of the frames, each way. */
  void lose(double share) {
    lossShare = share;
  }

  /** From now on frames arrive after half to one and a half times as long, each way. */
  void delay(long meanNs) {
    delayNs = meanNs;
  }

  /** From now on it is a good cable. */
  void mend() {
    lossShare = 0;
    delayNs = 0;
  }

  private void carry(int from, int to) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment frame = arena.allocate(FRAME_BYTES_MAX);
      while (true) {
        long length = (long) READ.invokeExact(from, frame, (long) FRAME_BYTES_MAX);
        if (length < 0) {
          // The interface was deleted.
          int _ = (int) CLOSE.invokeExact(from);
          return;
        }
        ThreadLocalRandom random = ThreadLocalRandom.current();
        if (random.nextDouble() < lossShare) {
          continue;
        }
        long meanNs = delayNs;
        if (meanNs == 0) {
          // An interface that is down takes nothing, as a cable that leads nowhere.
          long _ = (long) WRITE.invokeExact(to, frame, length);
        } else {
          byte[] copy = frame.asSlice(0, length).toArray(ValueLayout.JAVA_BYTE);
          long afterNs = meanNs / 2 + random.nextLong(meanNs);
          var _ = late.schedule(() -> write(to, copy), afterNs, TimeUnit.NANOSECONDS);
        }
      }
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }

  private static void write(int to, byte[] frame) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment bytes = arena.allocate(frame.length);
      MemorySegment.copy(frame, 0, bytes, ValueLayout.JAVA_BYTE, 0, frame.length);
      long _ = (long) WRITE.invokeExact(to, bytes, (long) frame.length);
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }

  /** What is on its way is lost; the rest ends with the interfaces. */
  @Override
  public void close() {
    late.shutdownNow();
  }
}
