package dev.flotilla.model;

import dev.flotilla.tensor.WeightType;
import java.util.Arrays;
import java.util.Optional;
import java.util.stream.Stream;

/** GGUF's numbers of weight types, and of files made mostly of one. */
final class GgufTypes {

  private GgufTypes() {}

  static int number(WeightType type) {
    return switch (type) {
      case F32 -> 0;
      case F16 -> 1;
      case Q4_0 -> 2;
      case Q8_0 -> 8;
      case Q4_K -> 12;
      case Q5_K -> 13;
      case Q6_K -> 14;
      case BF16 -> 30;
    };
  }

  static Optional<WeightType> ofNumber(int number) {
    return Arrays.stream(WeightType.values()).filter(type -> number(type) == number).findFirst();
  }

  /** {@code general.file_type}. */
  static int fileType(WeightType type) {
    return switch (type) {
      case F32 -> 0;
      case F16 -> 1;
      case Q4_0 -> 2;
      case Q8_0 -> 7;
      case Q4_K -> 15;
      case Q5_K -> 17;
      case Q6_K -> 18;
      case BF16 -> 32;
    };
  }

  /**
   * The type that a tensor is stored in where a model is to be of the given one: vectors and the
   * small matrices that choose experts stay exact, and the matrix that words are told apart by
   * keeps 8 bits.
   *
   * @param tied whether the embedding is the output matrix
   */
  static WeightType stored(Part part, WeightType wanted, boolean tied) {
    if (part.vector() || part.name().endsWith("ffn_gate_inp.weight")) {
      return WeightType.F32;
    }
    boolean output = part.name().equals(tied ? ModelTensors.EMBEDDING : ModelTensors.OUTPUT);
    boolean fine = output && wanted == WeightType.Q4_0;
    return forRows(fine ? WeightType.Q8_0 : wanted, part.shape().getFirst());
  }

  /** The type that a matrix gets where a model is to be of the given one. */
  static WeightType forRows(WeightType wanted, int columns) {
    return Stream.of(wanted, WeightType.Q8_0, WeightType.F16)
        .filter(type -> columns % type.blockElements() == 0)
        .findFirst()
        .orElseThrow();
  }

  /** A type that does not run here, for messages. */
  static String name(int number) {
    return switch (number) {
      case 3 -> "Q4_1";
      case 6 -> "Q5_0";
      case 7 -> "Q5_1";
      case 10 -> "Q2_K";
      case 11 -> "Q3_K";
      case 15 -> "Q8_K";
      case 16 -> "IQ2_XXS";
      case 17 -> "IQ2_XS";
      case 18 -> "IQ3_XXS";
      case 19 -> "IQ1_S";
      case 20 -> "IQ4_NL";
      case 21 -> "IQ3_S";
      case 22 -> "IQ2_S";
      case 23 -> "IQ4_XS";
      case 28 -> "F64";
      case 29 -> "IQ1_M";
      case 39 -> "MXFP4";
      default -> "number " + Integer.toUnsignedString(number);
    };
  }
}
