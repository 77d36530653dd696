package dev.flotilla.train;

import dev.flotilla.text.Tokenizer;
import java.util.List;

/**
 * What a job trains on. A sequence is a pure function of its number, so that any split of a batch
 * over workers reads the same sequences.
 */
sealed interface TrainingData extends AutoCloseable permits ChatData, TextData {

  /** Separates documents; never produced from text. */
  String BEGIN = "<|bos|>";

  /** Begins a user's message. */
  String USER = "<|user|>";

  /** Begins an answer. */
  String ASSISTANT = "<|assistant|>";

  /** Ends a message. */
  String END = "<|end|>";

  /** All special tokens; their ids are their places here. */
  List<String> SPECIAL_TOKENS = List.of(BEGIN, USER, ASSISTANT, END);

  /** The data that a configuration asks for; trains the tokenizer. */
  static TrainingData of(TrainingConfig config) {
    return config.text().isPresent()
        ? new TextData(config, config.text().get())
        : new ChatData(config);
  }

  /** The tokenizer trained on this data. */
  Tokenizer tokenizer();

  /** The same as a Hugging Face {@code tokenizer.json}. */
  String tokenizerJson();

  /** The chat template that renders conversations as they are trained on. */
  String chatTemplate();

  /** Training sequence number {@code number}, from 0. */
  Sequence sequence(long number);

  /** Sequences to measure the validation loss on, all at once; empty if there is none. */
  List<Sequence> validation();

  @Override
  void close();
}
