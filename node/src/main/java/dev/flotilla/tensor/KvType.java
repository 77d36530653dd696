package dev.flotilla.tensor;

/** How keys and values are kept. Arithmetic over them is always of single precision. */
public enum KvType {
  /** Single precision: 4 bytes an element. */
  F32,
  /** Half precision: 2 bytes. */
  F16,
  /** 32 elements of a head share a half-precision scale: 34 bytes. */
  Q8_0
}
