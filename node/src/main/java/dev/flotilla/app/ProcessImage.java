package dev.flotilla.app;

import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/**
 * Replaces what this process runs by another program (execve): the process id, the standard streams
 * and whoever watches over the process stay, everything else goes. Java has no way to this.
 */
@SuppressWarnings("restricted") // the launcher grants native access
final class ProcessImage {

  private static final int F_SETFD = 2;
  private static final int FD_CLOEXEC = 1;

  private ProcessImage() {}

  /**
   * Does not return, unless it fails.
   *
   * @param command the program's file, then its arguments
   * @throws IOException if the program cannot be run; this process goes on
   */
  static void replace(List<String> command, Map<String, String> environment) throws IOException {
    try (Arena arena = Arena.ofConfined()) {
      Linker linker = Linker.nativeLinker();
      SymbolLookup library = linker.defaultLookup();
      closeOnExec(linker, library);
      MethodHandle execve =
          linker.downcallHandle(
              library.find("execve").orElseThrow(),
              FunctionDescriptor.of(
                  ValueLayout.JAVA_INT,
                  ValueLayout.ADDRESS,
                  ValueLayout.ADDRESS,
                  ValueLayout.ADDRESS));
      List<String> variables =
          environment.entrySet().stream().map(e -> e.getKey() + "=" + e.getValue()).toList();
      int result =
          (int)
              execve.invokeExact(
                  arena.allocateFrom(command.getFirst()),
                  strings(arena, command),
                  strings(arena, variables));
      throw new IOException(command.getFirst() + " cannot be run (execve: " + result + ")");
    } catch (IOException e) {
      throw e;
    } catch (Throwable e) {
      throw new IOException(command.getFirst() + " cannot be run", e);
    }
  }

  /** An array of pointers to texts, with a null behind. */
  private static MemorySegment strings(Arena arena, List<String> texts) {
    MemorySegment array = arena.allocate(ValueLayout.ADDRESS, texts.size() + 1L);
    for (int i = 0; i < texts.size(); i++) {
      array.setAtIndex(ValueLayout.ADDRESS, i, arena.allocateFrom(texts.get(i)));
    }
    array.setAtIndex(ValueLayout.ADDRESS, texts.size(), MemorySegment.NULL);
    return array;
  }

  /** Files and sockets are not handed down: ports must be free for the successor. */
  private static void closeOnExec(Linker linker, SymbolLookup library) throws Throwable {
    MethodHandle fcntl =
        linker.downcallHandle(
            library.find("fcntl").orElseThrow(),
            FunctionDescriptor.of(
                ValueLayout.JAVA_INT,
                ValueLayout.JAVA_INT,
                ValueLayout.JAVA_INT,
                ValueLayout.JAVA_INT),
            Linker.Option.firstVariadicArg(2));
    Path folder =
        Files.isDirectory(Path.of("/proc/self/fd")) ? Path.of("/proc/self/fd") : Path.of("/dev/fd");
    try (DirectoryStream<Path> open = Files.newDirectoryStream(folder)) {
      for (Path each : open) {
        int descriptor = Integer.parseInt(each.getFileName().toString());
        if (descriptor > 2) {
          int _ = (int) fcntl.invokeExact(descriptor, F_SETFD, FD_CLOEXEC);
        }
      }
    }
  }
}
