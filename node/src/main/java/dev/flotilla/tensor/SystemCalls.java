package dev.flotilla.tensor;

import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.util.ArrayList;
import java.util.List;

/** What the kernels ask of Linux on x86-64. Every answer may be no. */
@SuppressWarnings("restricted") // the launcher grants native access
final class SystemCalls {

  private static final int PROT_READ = 1;
  private static final int PROT_WRITE = 2;
  private static final int PROT_EXEC = 4;
  private static final int MAP_PRIVATE = 2;
  private static final int MAP_ANONYMOUS = 32;
  private static final int MADV_HUGEPAGE = 14;
  private static final long ARCH_PRCTL = 158;
  private static final long ARCH_REQ_XCOMP_PERM = 0x1023;
  private static final long XTILEDATA = 18;
  private static final int ALIGNMENT = 64;
  private static final long LARGE_PAGE = 2 << 20;

  private SystemCalls() {}

  /** Asks that this process may use the matrix unit's tiles, as the kernel demands before. */
  static boolean permitTiles() {
    try {
      MethodHandle syscall =
          function(
              "syscall",
              FunctionDescriptor.of(
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_LONG),
              Linker.Option.firstVariadicArg(1));
      return (long) syscall.invokeExact(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
    } catch (Throwable e) {
      return false;
    }
  }

  /**
   * Places functions in memory that can be executed and no longer written.
   *
   * @return where each begins; none if the system does not allow it
   */
  static List<MemorySegment> executable(List<byte[]> functions) {
    long size = 0;
    List<Long> offsets = new ArrayList<>();
    for (byte[] code : functions) {
      offsets.add(size);
      size += (code.length + ALIGNMENT - 1L) / ALIGNMENT * ALIGNMENT;
    }
    try {
      MemorySegment place = map(size);
      if (place.address() == -1) {
        return List.of();
      }
      for (int i = 0; i < functions.size(); i++) {
        MemorySegment.copy(
            MemorySegment.ofArray(functions.get(i)),
            0,
            place,
            offsets.get(i),
            functions.get(i).length);
      }
      MethodHandle protect =
          function(
              "mprotect",
              FunctionDescriptor.of(
                  ValueLayout.JAVA_INT,
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_INT));
      if ((int) protect.invokeExact(place.address(), size, PROT_READ | PROT_EXEC) != 0) {
        return List.of();
      }
      return offsets.stream().map(place::asSlice).toList();
    } catch (Throwable e) {
      return List.of();
    }
  }

  /**
   * Memory of zeros on large pages, where the system has them: reading through it misses fewer
   * translations, and taking it costs fewer faults.
   *
   * @param arena owns it
   */
  static MemorySegment allocate(long bytes, Arena arena) {
    if (bytes < LARGE_PAGE || !System.getProperty("os.name").equals("Linux")) {
      return arena.allocate(bytes, ALIGNMENT);
    }
    try {
      long size = bytes + LARGE_PAGE;
      long address = map(size).address();
      if (address == -1) {
        throw new OutOfMemoryError(bytes + " bytes outside the heap");
      }
      long start = (address + LARGE_PAGE - 1) & -LARGE_PAGE;
      MethodHandle advise =
          function(
              "madvise",
              FunctionDescriptor.of(
                  ValueLayout.JAVA_INT,
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_LONG,
                  ValueLayout.JAVA_INT));
      // A system without them says no, and goes on with small ones.
      int _ = (int) advise.invokeExact(start, bytes, MADV_HUGEPAGE);
      return MemorySegment.ofAddress(start)
          .reinterpret(bytes, arena, memory -> unmap(address, size));
    } catch (RuntimeException | Error e) {
      throw e;
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }

  private static void unmap(long address, long size) {
    try {
      MethodHandle unmap =
          function(
              "munmap",
              FunctionDescriptor.of(
                  ValueLayout.JAVA_INT, ValueLayout.JAVA_LONG, ValueLayout.JAVA_LONG));
      int _ = (int) unmap.invokeExact(address, size);
    } catch (Throwable e) {
      throw new IllegalStateException(e);
    }
  }

  private static MemorySegment map(long size) throws Throwable {
    MethodHandle map =
        function(
            "mmap",
            FunctionDescriptor.of(
                ValueLayout.JAVA_LONG,
                ValueLayout.JAVA_LONG,
                ValueLayout.JAVA_LONG,
                ValueLayout.JAVA_INT,
                ValueLayout.JAVA_INT,
                ValueLayout.JAVA_INT,
                ValueLayout.JAVA_LONG));
    long address =
        (long)
            map.invokeExact(0L, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0L);
    return MemorySegment.ofAddress(address).reinterpret(size);
  }

  private static MethodHandle function(
      String name, FunctionDescriptor descriptor, Linker.Option... options) {
    Linker linker = Linker.nativeLinker();
    return linker.downcallHandle(linker.defaultLookup().findOrThrow(name), descriptor, options);
  }
}
