package dev.flotilla.serve;

import dev.flotilla.FlotillaException;
import dev.flotilla.model.KvFormat;
import java.util.Objects;

/**
 * How a deployment computes.
 *
 * @param kv how keys and values are kept
 * @param wire how hidden states travel between stages
 * @param speculate whether tokens are guessed from what the text has already
 * @param draft a smaller model that guesses tokens; empty for none
 */
public record Engine(KvFormat kv, WireType wire, boolean speculate, String draft) {

  /** What nobody has chosen otherwise. */
  public static final Engine DEFAULT = new Engine(KvFormat.DEFAULT, WireType.F32, false, "");

  /** Fills in what records of earlier versions do not have. */
  public Engine {
    kv = Objects.requireNonNullElse(kv, KvFormat.DEFAULT);
    wire = Objects.requireNonNullElse(wire, WireType.F32);
    draft = Objects.requireNonNullElse(draft, "");
  }

  /**
   * Reads it as options and fields have it.
   *
   * @param kv {@code f32}, {@code f16} or {@code q8_0}
   * @param wire {@code f32} or {@code bf16}
   * @throws FlotillaException {@code INVALID} for another
   */
  public static Engine of(String kv, String wire, boolean speculate, String draft) {
    return new Engine(
        KvFormat.of(kv).orElseThrow(() -> unknown("kv", kv, "f32, f16 or q8_0")),
        WireType.of(wire).orElseThrow(() -> unknown("wire", wire, "f32 or bf16")),
        speculate,
        draft);
  }

  private static FlotillaException unknown(String what, String given, String known) {
    String shown = given.length() > 60 ? given.substring(0, 60) + "…" : given;
    return new FlotillaException(
        FlotillaException.Code.INVALID, "unknown " + what + " " + shown, "Use " + known + ".");
  }

  /** As options and fields have it. */
  public String kvLabel() {
    return kv.label();
  }

  /** As options and fields have it. */
  public String wireLabel() {
    return wire.label();
  }

  /** What of it may change the text of an answer: guesses never do. */
  public String form() {
    return "kv=" + kv.label() + " wire=" + wire.label();
  }
}
