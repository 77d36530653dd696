package dev.flotilla.model;

import dev.flotilla.tensor.Attention;
import dev.flotilla.tensor.KvBlocks;
import dev.flotilla.tensor.KvLayout;
import dev.flotilla.tensor.Matrix;
import dev.flotilla.tensor.SimdOps;
import java.nio.ByteBuffer;

/**
 * The keys and values of a slice, in blocks of 32 positions. It knows no sequences: whoever drives
 * the slice owns the blocks, and says with each step which ones a row's sequence has.
 */
final class KvCache implements AutoCloseable {

  private static final int BLOCK = KvBlocks.POSITIONS;

  private final ModelConfig config;
  private final int firstLayer;
  private final int blocks;
  private final KvLayout layout;
  private final KvBlocks memory;

  KvCache(SimdOps ops, ModelConfig config, LayerRange range, KvFormat format, int positions) {
    this.config = config;
    firstLayer = range.first();
    blocks = Math.ceilDiv(positions, BLOCK);
    layout = layout(config, range.count(), format);
    memory = new KvBlocks(ops, layout, config.heads(), blocks);
  }

  static KvLayout layout(ModelConfig config, int layers, KvFormat format) {
    return new KvLayout(format.type(), layers, config.kvHeads(), config.headWidth());
  }

  /** How many blocks there are; they are numbered from 0. */
  int blocks() {
    return blocks;
  }

  /** Bytes that a layer takes of a block. */
  int layerBytes() {
    return Math.toIntExact(layout.layerBytes());
  }

  /** What some layers keep in a block: layer after layer. */
  ByteBuffer read(int block, LayerRange layers) {
    ByteBuffer content = ByteBuffer.allocate(Math.multiplyExact(layerBytes(), layers.count()));
    memory.read(block, layers.first() - firstLayer, layers.count(), content);
    return content.flip();
  }

  /** Takes up what {@link #read} gave. */
  void write(int block, LayerRange layers, ByteBuffer content) {
    if (content.remaining() != (long) layerBytes() * layers.count()) {
      throw new IllegalArgumentException(
          content.remaining() + " bytes for " + layers + " of " + layerBytes() + " each");
    }
    memory.write(block, layers.first() - firstLayer, layers.count(), content);
  }

  /** Takes up a step's rows, layer by layer, and attends over what each of them may see. */
  Attention<Matrix> attention(Rows rows) {
    int[] positions = rows.positions();
    int[][] tables = new int[positions.length][];
    int[] visible = new int[positions.length];
    int row = 0;
    for (Rows.Run run : rows.runs()) {
      for (int i = 0; i < run.count(); i++, row++) {
        tables[row] = run.blocks();
        visible[row] = positions[row] + 1;
      }
      for (int block : run.blocks()) {
        if (block < 0 || block >= blocks) {
          throw new IllegalArgumentException("block " + block + " of " + blocks);
        }
      }
    }
    return (layer, query, key, value) -> {
      int here = layer - firstLayer;
      for (int i = 0; i < tables.length; i++) {
        int block = tables[i][positions[i] / BLOCK];
        memory.write(here, block, positions[i] % BLOCK, key, value, i);
      }
      return memory.attend(here, query, tables, visible, config.scoring(layer));
    };
  }

  @Override
  public void close() {
    memory.close();
  }
}
