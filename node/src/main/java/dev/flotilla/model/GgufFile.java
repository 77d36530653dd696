package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.GgufHeader.TensorInfo;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/** A whole GGUF file, mapped: what is not read takes no memory. */
public final class GgufFile implements TensorSource {

  private final Path file;
  private final GgufHeader header;
  private final Arena arena;
  private final MemorySegment bytes;

  private GgufFile(Path file, GgufHeader header, Arena arena, MemorySegment bytes) {
    this.file = file;
    this.header = header;
    this.arena = arena;
    this.bytes = bytes;
  }

  /**
   * Maps a file and checks its head.
   *
   * @throws FlotillaException {@code NOT_FOUND}, {@code BAD_FILE} or {@code STORAGE}
   */
  @SuppressWarnings("MustBeClosedChecker") // the file that is returned owns the arena
  public static GgufFile open(Path file) {
    Arena arena = Arena.ofShared();
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      MemorySegment bytes = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size(), arena);
      GgufHeader header = GgufHeader.parse(file.toString(), bytes, bytes.byteSize());
      return new GgufFile(file, header, arena, bytes);
    } catch (IOException e) {
      arena.close();
      throw WeightFiles.failure("read", file, e);
    } catch (FlotillaException e) {
      arena.close();
      throw e;
    }
  }

  @Override
  public GgufHeader header() {
    return header;
  }

  /** The bytes that {@link GgufHeader#parse(String, MemorySegment, long)} needs. */
  public MemorySegment head() {
    return bytes.asSlice(0, Math.min(header.headBytes(), bytes.byteSize()));
  }

  @Override
  public MemorySegment tensor(String name) {
    TensorInfo info =
        header
            .tensor(name)
            .orElseThrow(
                () ->
                    new FlotillaException(
                        FlotillaException.Code.NOT_FOUND, file + " has no tensor " + name, ""));
    return bytes.asSlice(info.offset(), info.bytes());
  }

  @Override
  public void close() {
    arena.close();
  }
}
