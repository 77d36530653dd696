package org.apache.ratis.server.storage;

import dev.flotilla.cluster.NodeFiles;
import java.io.File;
import java.io.IOException;
import java.lang.reflect.Field;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.NullMarked;
import org.jspecify.annotations.Nullable;

/**
 * The file in which Ratis keeps its term and its vote, written so that it always has the last ones
 * that were kept. Ratis 3.2.2 writes a second file and gives it the first one's name even where the
 * disk had no room for its content: then both the new vote and the one before are forgotten, and a
 * vote that is forgotten may be given twice. Here a file gets the name once all of it is on the
 * disk; until there is room no vote is given.
 *
 * <p>It is in Ratis's package because what it replaces is not public.
 */
@NullMarked
public final class WholeMetadataFile extends RaftStorageMetadataFileImpl {

  private final File file;
  private @Nullable RaftStorageMetadata known;

  private WholeMetadataFile(File file) {
    super(file);
    this.file = file;
  }

  /**
   * Puts it in the place of Ratis's own; call it before the storage is used, as a state machine's
   * {@code initialize} is.
   *
   * @throws IllegalStateException with another Ratis, in which it would not be used
   */
  @SuppressWarnings("unchecked") // checked by what it holds
  public static void install(RaftStorage storage) {
    try {
      Object metaFile = field(storage.getClass(), "metaFile").get(storage);
      AtomicReference<Object> ref =
          (AtomicReference<Object>) field(metaFile.getClass(), "ref").get(metaFile);
      File file = ((RaftStorageDirectoryImpl) storage.getStorageDir()).getMetaFile();
      if (!(ref.get() instanceof RaftStorageMetadataFileImpl)) {
        throw new IllegalStateException("the registry's storage has no file for its vote");
      }
      WholeMetadataFile whole = new WholeMetadataFile(file);
      ref.set(whole);
      if (storage.getMetadataFile() != whole) {
        throw new IllegalStateException("the registry's storage keeps its vote elsewhere");
      }
    } catch (ReflectiveOperationException e) {
      throw new IllegalStateException("this version of Ratis keeps its vote in another way", e);
    }
  }

  private static Field field(Class<?> type, String name) throws NoSuchFieldException {
    Field field = type.getDeclaredField(name);
    field.setAccessible(true);
    return field;
  }

  @Override
  public synchronized RaftStorageMetadata getMetadata() throws IOException {
    RaftStorageMetadata metadata = known == null ? load(file) : known;
    known = metadata;
    return metadata;
  }

  @Override
  public synchronized void persist(RaftStorageMetadata metadata) throws IOException {
    if (metadata.equals(known)) {
      return;
    }
    String text = "term=" + metadata.getTerm() + "\nvotedFor=" + metadata.getVotedFor() + "\n";
    NodeFiles.writeDurably(file.toPath(), text.getBytes(StandardCharsets.UTF_8), false);
    known = metadata;
  }
}
