package dev.flotilla.tensor;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.regex.Pattern;

/**
 * What machine code may use here: Linux on x86-64 with vectors of 512 bits, or nothing. {@code
 * -Dflotilla.machine-code=false} makes it nothing, {@code -Dflotilla.matrix-unit=false} leaves out
 * the matrix unit (AMX).
 */
final class Processor {

  private static final String INFORMATION = information();

  private static final boolean TILES =
      allowed("flotilla.matrix-unit") && has("amx_tile") && SystemCalls.permitTiles();

  private Processor() {}

  /**
   * Whether machine code may use an instruction set.
   *
   * @param feature as Linux calls it
   */
  static boolean has(String feature) {
    return Pattern.compile("^flags\\s*:.*\\b" + feature + "\\b", Pattern.MULTILINE)
        .matcher(INFORMATION)
        .find();
  }

  /** Whether the matrix unit is there, permitted, and can do this. */
  static boolean hasMatrixUnit(String feature) {
    return TILES && has(feature);
  }

  private static boolean allowed(String property) {
    return Boolean.parseBoolean(System.getProperty(property, "true"));
  }

  private static String information() {
    if (!allowed("flotilla.machine-code")
        || Kernels.lanes() < 16
        || !System.getProperty("os.arch").equals("amd64")) {
      return "";
    }
    try {
      return Files.readString(Path.of("/proc/cpuinfo"));
    } catch (IOException e) {
      return ""; // not Linux
    }
  }
}
