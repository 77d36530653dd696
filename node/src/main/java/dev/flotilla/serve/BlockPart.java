package dev.flotilla.serve;

import dev.flotilla.model.LayerRange;
import java.nio.ByteBuffer;
import java.util.Optional;

/**
 * What some layers keep in a block of the KV cache, on its way to another cache.
 *
 * @param id of what it belongs to: an export, between the stages of the replica that has it; a
 *     text, between two replicas; a block, between the stages of the replica that takes it
 * @param layers of the model
 * @param content layer after layer, the same number of bytes of each
 */
record BlockPart(long id, LayerRange layers, ByteBuffer content) {

  /** Under another id. */
  BlockPart as(long other) {
    return new BlockPart(other, layers, content);
  }

  /** What of it is within a range of layers. */
  Optional<BlockPart> within(LayerRange range) {
    int first = Math.max(layers.first(), range.first());
    int last = Math.min(layers.last(), range.last());
    if (first > last) {
      return Optional.empty();
    }
    int bytes = content.remaining() / layers.count();
    int from = content.position() + bytes * (first - layers.first());
    return Optional.of(
        new BlockPart(
            id,
            new LayerRange(first, last),
            content.slice(from, bytes * (last - first + 1)).asReadOnlyBuffer()));
  }
}
