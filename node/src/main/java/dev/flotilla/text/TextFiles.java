package dev.flotilla.text;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;

/** Small UTF-8 files: written whole or not at all, read strictly. */
final class TextFiles {

  /** More than the largest tokenizer.json in use (Gemma's 33 MB), far less than the heap. */
  private static final long BYTES_MAX = 256L << 20;

  private TextFiles() {}

  static void write(Path file, String text) {
    Path temporary = file.resolveSibling("." + file.getFileName() + ".tmp");
    try {
      try (FileChannel channel =
          FileChannel.open(
              temporary,
              StandardOpenOption.CREATE,
              StandardOpenOption.TRUNCATE_EXISTING,
              StandardOpenOption.WRITE)) {
        ByteBuffer bytes = StandardCharsets.UTF_8.encode(text);
        while (bytes.hasRemaining()) {
          channel.write(bytes);
        }
        channel.force(true);
      }
      Files.move(
          temporary, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.STORAGE,
          "cannot write " + file + ": " + e.getMessage(),
          "Free some space or choose another folder.",
          e);
    }
  }

  static String read(Path file) {
    try {
      long bytes = Files.size(file);
      if (bytes > BYTES_MAX) {
        throw new FlotillaException(
            Code.BAD_FILE, file + " has " + bytes + " bytes", "No real file of its kind has.");
      }
      return StandardCharsets.UTF_8
          .newDecoder()
          .decode(ByteBuffer.wrap(Files.readAllBytes(file)))
          .toString();
    } catch (CharacterCodingException e) {
      throw new FlotillaException(
          Code.BAD_FILE, file + " is not valid UTF-8", "Fetch the file again.", e);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.BAD_FILE,
          "cannot read " + file + ": " + e.getMessage(),
          "Check that the file exists and may be read.",
          e);
    }
  }
}
