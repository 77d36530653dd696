package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.IOException;
import java.nio.charset.CharacterCodingException;
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
      String text = Files.readString(file);
      if (text.isBlank()) {
        throw new FlotillaException(Code.BAD_FILE, file + " is empty", "Name a file with text.");
      }
      return text;
    } catch (CharacterCodingException e) {
      throw new FlotillaException(
          Code.BAD_FILE,
          file + " is not UTF-8 text",
          "Convert it, for example with: iconv -f latin1 -t utf-8",
          e);
    } catch (NoSuchFileException e) {
      throw new FlotillaException(Code.NOT_FOUND, "there is no file " + file, "", e);
    } catch (IOException e) {
      throw new FlotillaException(Code.NOT_FOUND, "cannot read " + file + ": " + e, "", e);
    }
  }
}
