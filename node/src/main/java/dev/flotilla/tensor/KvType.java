package dev.flotilla.tensor;

import java.util.Arrays;
import java.util.Locale;
import java.util.Optional;

/** How keys and values are kept. Arithmetic over them is always of single precision. */
public enum KvType {
  /** Single precision: 4 bytes an element. */
  F32,
  /** Half precision: 2 bytes. */
  F16,
  /** 32 elements of a head share a half-precision scale: 34 bytes. */
  Q8_0;

  /** What is taken where nobody asks for another. */
  public static final KvType DEFAULT = F16;

  /** As options and fields have it. */
  public String label() {
    return name().toLowerCase(Locale.ROOT);
  }

  /** The one of that label. */
  public static Optional<KvType> of(String label) {
    return Arrays.stream(values()).filter(type -> type.label().equals(label)).findFirst();
  }
}
