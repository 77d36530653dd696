package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.IoReason;
import dev.flotilla.train.TrainingText;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;

/** Text files that a user names. */
final class TextFiles {

  private TextFiles() {}

  /**
   * The whole of a UTF-8 file.
   *
   * @throws FlotillaException {@code BAD_FILE} if it is empty or not UTF-8, {@code NOT_FOUND} if it
   *     cannot be read
   */
  static String read(Path file) {
    try {
      return TrainingText.decode(Files.readAllBytes(file), file.toString());
    } catch (NoSuchFileException e) {
      throw new FlotillaException(
          Code.NOT_FOUND, "there is no file " + file, "Name a file that is there.", e);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.NOT_FOUND,
          "cannot read " + file + ": " + IoReason.of(e),
          "Name a file that can be read.",
          e);
    }
  }
}
