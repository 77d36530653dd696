package dev.flotilla.model;

import java.nio.ByteBuffer;

/**
 * A run of a model's layers, ready to run on this machine, with the blocks of a KV cache. Which
 * sequence has which blocks, each step's rows say. The slice with layer 0 also embeds; the one with
 * the last layer also computes logits and what embeddings are pooled from.
 *
 * <p>Not thread-safe: one stage thread drives it. A row's bits depend on nothing but its own
 * sequence and its route: not on the rows beside it, the number of threads, what was in the cache
 * already, or how the layers are cut into slices.
 */
public interface LayerSlice extends AutoCloseable {

  /** The whole model's shape. */
  ModelConfig config();

  /** Which layers are here. */
  LayerRange range();

  /** Bytes that the packed weights take. */
  long weightBytes();

  /** Blocks of 32 positions that the KV cache holds, numbered from 0. */
  int blocks();

  /**
   * Embeds token ids.
   *
   * @return hidden states {@code [tokens.length, width]}, row after row
   */
  float[] embed(int[] tokens);

  /**
   * Runs the layers over a step's rows, and puts their keys and values where the rows say. What a
   * row may see, its sequence's earlier positions, is in its blocks already, or comes with earlier
   * rows of the step.
   *
   * @param hidden {@code [rows, width]}, overwritten with the result
   */
  void forward(float[] hidden, Rows rows);

  /** Bytes that one layer's keys and values take of a block. */
  int blockBytesOfLayer();

  /**
   * Reads what some layers of this slice keep in a block that has been written to.
   *
   * @return layer after layer, {@link #blockBytesOfLayer()} of each
   */
  ByteBuffer readBlock(int block, LayerRange layers);

  /**
   * Writes what another slice of the same model, with the same form of keys and values, kept in a
   * block: its rows are then here as if they had been run here.
   *
   * @param layers of this slice
   * @param content as {@link #readBlock} gives it
   */
  void writeBlock(int block, LayerRange layers, ByteBuffer content);

  /**
   * Logits of the rows asked for.
   *
   * @param hidden {@code [rows, width]}
   * @param rows indexes of the rows wanted
   * @return {@code [rows.length, vocabularySize]}, row after row
   */
  float[] logits(float[] hidden, int[] rows);

  /**
   * Hidden states of the rows asked for, after the model's last norm: what an embedding is pooled
   * from.
   *
   * @param hidden {@code [rows, width]}
   * @param rows indexes of the rows wanted
   * @return {@code [rows.length, width]}, row after row
   */
  float[] normalised(float[] hidden, int[] rows);

  /** Frees the weights and the cache. */
  @Override
  void close();
}
