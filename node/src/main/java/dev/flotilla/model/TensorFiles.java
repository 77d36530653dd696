package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.model.GgufHeader.TensorInfo;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.function.Function;

/** Tensors of a GGUF file that lie in other files: what a node has that fetched only its layers. */
public final class TensorFiles implements TensorSource {

  /** Where a tensor's bytes begin. */
  public record Location(Path file, long offset) {}

  private final GgufHeader header;
  private final Function<String, Location> locations;
  private final Arena arena = Arena.ofShared();

  /**
   * @param locations where to find a tensor by its name
   */
  public TensorFiles(GgufHeader header, Function<String, Location> locations) {
    this.header = header;
    this.locations = locations;
  }

  @Override
  public GgufHeader header() {
    return header;
  }

  @Override
  public MemorySegment tensor(String name) {
    TensorInfo info =
        header
            .tensor(name)
            .orElseThrow(
                () -> new FlotillaException(Code.NOT_FOUND, "the model has no tensor " + name, ""));
    Location location = locations.apply(name);
    try (FileChannel channel = FileChannel.open(location.file(), StandardOpenOption.READ)) {
      if (channel.size() - location.offset() < info.bytes()) {
        throw WeightFiles.bad(
            location.file().toString(),
            "ends within tensor " + name + ": the file is cut short",
            "Delete the file; it will be fetched again");
      }
      return channel.map(FileChannel.MapMode.READ_ONLY, location.offset(), info.bytes(), arena);
    } catch (IOException e) {
      throw WeightFiles.failure("read", location.file(), e);
    }
  }

  @Override
  public void close() {
    arena.close();
  }
}
