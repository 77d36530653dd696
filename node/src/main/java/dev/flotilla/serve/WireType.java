package dev.flotilla.serve;

import java.util.Arrays;
import java.util.Locale;
import java.util.Optional;

/** How hidden states travel between the stages of a replica. */
enum WireType {
  /** As they are: however a model is cut into stages, the bits are the same. */
  F32,
  /** Half the bytes; what a stage receives is rounded to 8 significant bits. */
  BF16;

  String label() {
    return name().toLowerCase(Locale.ROOT);
  }

  static Optional<WireType> of(String label) {
    return Arrays.stream(values()).filter(type -> type.label().equals(label)).findFirst();
  }
}
