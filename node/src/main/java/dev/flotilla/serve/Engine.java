package dev.flotilla.serve;

import dev.flotilla.tensor.KvType;
import java.util.Objects;
import java.util.Optional;

/**
 * How a deployment computes.
 *
 * @param kv how keys and values are kept
 */
public record Engine(KvType kv) {

  /** What nobody has chosen otherwise. */
  public static final Engine DEFAULT = new Engine(KvType.DEFAULT);

  /** Fills in what records of earlier versions do not have. */
  public Engine {
    kv = Objects.requireNonNullElse(kv, KvType.DEFAULT);
  }

  /** As options and fields have it. */
  public String kvLabel() {
    return kv.label();
  }

  /** The same with keys and values kept that way; empty for a label that is none. */
  public Optional<Engine> withKv(String label) {
    return KvType.of(label).map(Engine::new);
  }

  /** What of it may change the text of an answer. */
  public String form() {
    return "kv=" + kv.label();
  }
}
