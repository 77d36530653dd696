package dev.flotilla.cluster;

import dev.flotilla.Json;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Optional;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * How old a node's data folder is, counted in starts of the node: by this a folder that was put
 * back from a backup is recognised, for the cluster remembers more starts than the folder does.
 * Such a node has forgotten what it voted for and confirmed, and would break what others rest on.
 */
final class FolderAge {

  /**
   * @param starts of the node, this one included; written before the cluster hears of the start, so
   *     it is never behind what the cluster knows
   * @param peers whom to ask at the next start, before anything of this node is open
   */
  record Note(long starts, List<Identity.Peer> peers) {}

  private static final Logger LOG = LoggerFactory.getLogger(FolderAge.class);

  private final Path file;
  private Note noted;

  /** Reads what the folder says; a note that is damaged says nothing. */
  FolderAge(Path dataFolder) {
    this.file = dataFolder.resolve("data").resolve("starts.json");
    this.noted = read(file);
  }

  private static Note read(Path file) {
    if (Files.exists(file)) {
      try {
        return Json.MAPPER.readValue(file.toFile(), Note.class);
      } catch (IOException e) {
        LOG.warn("{} is damaged and made anew: {}", file, RaftRegistry.rootCause(e));
      }
    }
    return new Note(0, List.of());
  }

  /** What is known; nothing of a folder that was never started. */
  synchronized Optional<Note> note() {
    return noted.starts() == 0 ? Optional.empty() : Optional.of(noted);
  }

  /** Before the cluster hears of a start. */
  synchronized void started(long starts) {
    keep(new Note(Math.max(starts, noted.starts()), noted.peers()));
  }

  /** Whom to ask. */
  synchronized void peers(List<Identity.Peer> peers) {
    if (!peers.equals(noted.peers())) {
      keep(new Note(noted.starts(), List.copyOf(peers)));
    }
  }

  private void keep(Note note) {
    try {
      Files.createDirectories(file.toAbsolutePath().getParent());
      NodeFiles.writeDurably(file, Json.write(note), false);
      noted = note;
    } catch (IOException e) {
      // Without room nothing else is written either; the node itself can go on.
      LOG.warn("{} cannot be written: {}", file, RaftRegistry.rootCause(e));
    }
  }
}
