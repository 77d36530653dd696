package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.model.GgufHeader.TensorInfo;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.ValueLayout;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;

/**
 * Part of a GGUF file: its head, and those of its tensors that this node has, one file each. Every
 * file in it is whole, so a fetch that was cut off goes on with what is missing.
 *
 * <p>Files are named by the tensor's place in the head, never by its name, which is a stranger's.
 */
public final class TensorFolder implements TensorSource {

  private static final ValueLayout.OfLong LONG =
      ValueLayout.JAVA_LONG_UNALIGNED.withOrder(ByteOrder.LITTLE_ENDIAN);

  private final Path folder;
  private final GgufHeader header;
  private final Arena arena = Arena.ofShared();

  private TensorFolder(Path folder, GgufHeader header) {
    this.folder = folder;
    this.header = header;
  }

  /**
   * Opens a folder, making it if need be.
   *
   * @param head the first {@link GgufHeader#headBytes} bytes of the GGUF file
   * @param fileBytes the size of the GGUF file
   * @throws FlotillaException {@code BAD_FILE} if the head is not one; {@code STORAGE}
   */
  public static TensorFolder create(Path folder, byte[] head, long fileBytes) {
    GgufHeader header = GgufHeader.parse(folder.toString(), head, fileBytes);
    ByteBuffer content = ByteBuffer.allocate(8 + head.length).order(ByteOrder.LITTLE_ENDIAN);
    content.putLong(fileBytes).put(head).flip();
    WeightFiles.writeAtomically(
        folder.resolve("head"), channel -> WeightFiles.writeFully(channel, content));
    return new TensorFolder(folder, header);
  }

  /**
   * Opens a folder that {@link #create} made.
   *
   * @throws FlotillaException {@code NOT_FOUND}, {@code BAD_FILE} or {@code STORAGE}
   */
  public static TensorFolder open(Path folder) {
    try {
      MemorySegment content = MemorySegment.ofArray(Files.readAllBytes(folder.resolve("head")));
      if (content.byteSize() < 8) {
        throw WeightFiles.bad(folder + "/head", "cut short");
      }
      long fileBytes = content.get(LONG, 0);
      return new TensorFolder(
          folder, GgufHeader.parse(folder.toString(), content.asSlice(8), fileBytes));
    } catch (IOException e) {
      throw WeightFiles.failure("read", folder.resolve("head"), e);
    }
  }

  @Override
  public GgufHeader header() {
    return header;
  }

  /** Whether a tensor is here, whole. */
  public boolean has(String name) {
    TensorInfo info = info(name);
    try {
      Path file = file(info);
      return Files.exists(file) && Files.size(file) == info.bytes();
    } catch (IOException e) {
      return false;
    }
  }

  /**
   * Where to put a tensor's bytes: write them under another name in the same folder, verify, then
   * move them here atomically.
   *
   * @throws FlotillaException {@code NOT_FOUND} if the model has no such tensor
   */
  public Path file(String name) {
    return file(info(name));
  }

  private Path file(TensorInfo info) {
    return folder.resolve("tensor-" + header.tensors().indexOf(info));
  }

  private TensorInfo info(String name) {
    return header
        .tensor(name)
        .orElseThrow(
            () ->
                new FlotillaException(
                    Code.NOT_FOUND, "the model in " + folder + " has no tensor " + name, ""));
  }

  @Override
  public MemorySegment tensor(String name) {
    TensorInfo info = info(name);
    Path file = file(info);
    try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
      if (channel.size() != info.bytes()) {
        throw WeightFiles.bad(
            file.toString(),
            channel.size() + " bytes, but tensor " + name + " has " + info.bytes(),
            "Delete the file; it will be fetched again");
      }
      return channel.map(FileChannel.MapMode.READ_ONLY, 0, info.bytes(), arena);
    } catch (IOException e) {
      throw WeightFiles.failure("read", file, e);
    }
  }

  @Override
  public void close() {
    arena.close();
  }
}
