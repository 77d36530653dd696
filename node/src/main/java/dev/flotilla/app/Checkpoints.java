package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.IoReason;
import dev.flotilla.data.blobs.Blobs;
import dev.flotilla.data.blobs.Blobs.Blob;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;

/**
 * What jobs have trained, as blobs: bucket {@code checkpoints}, names {@code JOB/FILE}, so that it
 * outlives the node on which it was trained.
 */
final class Checkpoints {

  static final String BUCKET = "checkpoints";

  private Checkpoints() {}

  /** Keeps a folder's files under the job's name; may be repeated. */
  static void keep(Blobs blobs, String job, Path folder) {
    List<Path> files;
    try (Stream<Path> entries = Files.list(folder)) {
      files = entries.filter(Files::isRegularFile).sorted().toList();
    } catch (IOException e) {
      throw unreadable(folder, IoReason.of(e), e);
    }
    for (Path file : files) {
      try (InputStream content = Files.newInputStream(file)) {
        Blob blob = blobs.put(BUCKET, content);
        var _ =
            blobs.name(
                BUCKET,
                job + "/" + file.getFileName(),
                blob.digest(),
                Optional.empty(),
                Optional.empty());
        var _ = blobs.remove(BUCKET, blob.digest(), Optional.empty());
      } catch (UncheckedIOException e) {
        throw unreadable(file, IoReason.of(e), e);
      } catch (IOException e) {
        throw unreadable(file, IoReason.of(e), e);
      }
    }
  }

  private static FlotillaException unreadable(Path path, String why, Exception e) {
    return new FlotillaException(
        Code.STORAGE, "cannot read " + path + ": " + why, "Check the disk and its permissions.", e);
  }
}
