package dev.flotilla.model;

import java.lang.foreign.MemorySegment;

/** Where a slice's weights come from: a GGUF header, and the bytes of tensors by name. */
public interface TensorSource extends AutoCloseable {

  /** What the whole file says. */
  GgufHeader header();

  /**
   * The bytes of a tensor as the GGUF file has them, valid until {@link #close}; exactly {@link
   * GgufHeader.TensorInfo#bytes} long.
   *
   * @throws dev.flotilla.FlotillaException {@code NOT_FOUND} if it is not here, {@code BAD_FILE} if
   *     it is not of the size that the header says
   */
  MemorySegment tensor(String name);

  @Override
  void close();
}
