package dev.flotilla.model;

import dev.flotilla.tensor.KvType;
import java.util.Arrays;
import java.util.Locale;
import java.util.Optional;

/** How a slice keeps keys and values. */
public enum KvFormat {
  /** Single precision: 4 bytes an element. */
  F32(KvType.F32),
  /** Half precision: 2 bytes. */
  F16(KvType.F16),
  /** 32 elements of a head share a half-precision scale: 34 bytes. */
  Q8_0(KvType.Q8_0);

  /** What is taken where nobody asks for another. */
  public static final KvFormat DEFAULT = F16;

  private final KvType type;

  KvFormat(KvType type) {
    this.type = type;
  }

  KvType type() {
    return type;
  }

  /** As options and fields have it. */
  public String label() {
    return name().toLowerCase(Locale.ROOT);
  }

  /** The one of that label. */
  public static Optional<KvFormat> of(String label) {
    return Arrays.stream(values()).filter(format -> format.label().equals(label)).findFirst();
  }
}
