package dev.flotilla.serve;

import java.util.List;

/**
 * What is where in a GGUF file, and what it must hash to, so that a part of it can be fetched and
 * verified alone.
 *
 * @param headerBytes everything before the first tensor's data
 * @param headerSha256 of those bytes, in hexadecimal
 * @param tensors in the order of the file
 */
record Manifest(long headerBytes, String headerSha256, List<TensorPart> tensors) {

  /**
   * A tensor's data.
   *
   * @param offset from the start of the file
   */
  record TensorPart(String name, long offset, long bytes, String sha256) {}
}
