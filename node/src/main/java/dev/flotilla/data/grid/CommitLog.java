package dev.flotilla.data.grid;

import java.io.File;
import java.io.IOException;
import java.io.Serializable;
import java.lang.reflect.Method;
import java.nio.channels.FileChannel;
import java.nio.file.OpenOption;
import java.util.UUID;
import org.apache.ignite.IgniteCheckedException;
import org.apache.ignite.cluster.ClusterNode;
import org.apache.ignite.internal.GridKernalContext;
import org.apache.ignite.internal.IgniteEx;
import org.apache.ignite.internal.pagemem.wal.IgniteWriteAheadLogManager;
import org.apache.ignite.internal.pagemem.wal.record.TxRecord;
import org.apache.ignite.internal.pagemem.wal.record.WALRecord;
import org.apache.ignite.internal.processors.cache.persistence.StorageException;
import org.apache.ignite.internal.processors.cache.persistence.file.FileIO;
import org.apache.ignite.internal.processors.cache.persistence.file.FileIOFactory;
import org.apache.ignite.internal.processors.cache.persistence.file.RandomAccessFileIO;
import org.apache.ignite.internal.processors.cache.persistence.wal.FileWriteAheadLogManager;
import org.apache.ignite.internal.processors.cache.persistence.wal.WALPointer;
import org.apache.ignite.internal.util.typedef.internal.U;
import org.apache.ignite.plugin.CachePluginContext;
import org.apache.ignite.plugin.CachePluginProvider;
import org.apache.ignite.plugin.ExtensionRegistry;
import org.apache.ignite.plugin.IgnitePlugin;
import org.apache.ignite.plugin.PluginConfiguration;
import org.apache.ignite.plugin.PluginContext;
import org.apache.ignite.plugin.PluginProvider;
import org.jspecify.annotations.Nullable;

/**
 * Lets the engine force its log to the disk once for a transaction, where it does so twice.
 *
 * <p>A commit logs what it changes and forces that: from then on a node that starts again has it,
 * since recovery applies all that was logged of changes. Then the engine logs that the transaction
 * has ended, and forces that too, before it answers. Recovery does not read the second record; only
 * incremental snapshots do, from a log that is whole up to the point they are made at, and a force
 * for anything later covers it. So it is logged here as ever, and not waited for.
 */
final class CommitLog implements PluginProvider<PluginConfiguration> {

  /** The place of a record that nobody needs to wait for. */
  private static final class NotAwaited extends WALPointer {
    NotAwaited(WALPointer its) {
      super(its.index(), its.fileOffset(), its.length());
    }
  }

  private static final class Manager extends FileWriteAheadLogManager {
    Manager(GridKernalContext context) {
      super(context);
    }

    @Override
    public @Nullable WALPointer log(WALRecord entry) throws IgniteCheckedException {
      WALPointer place = super.log(entry);
      return place != null && entry instanceof TxRecord ? new NotAwaited(place) : place;
    }

    @Override
    public WALPointer flush(@Nullable WALPointer place, boolean explicitly)
        throws IgniteCheckedException, StorageException {
      return place instanceof NotAwaited ? place : super.flush(place, explicitly);
    }
  }

  /**
   * Files that the calling thread itself reads and writes. The engine's own go through a pool, two
   * switches of threads at each force, because an interrupt closes a channel; these are told not to
   * mind interrupts.
   */
  static final class Files implements FileIOFactory {
    private static final long serialVersionUID = 1;

    @Override
    public FileIO create(File file, OpenOption... modes) throws IOException {
      RandomAccessFileIO io = new RandomAccessFileIO(file, modes);
      try {
        FileChannel channel = U.field(io, "ch");
        Method uninterruptible = channel.getClass().getDeclaredMethod("setUninterruptible");
        uninterruptible.setAccessible(true);
        uninterruptible.invoke(channel);
      } catch (ReflectiveOperationException e) {
        io.close();
        throw new IOException("this JVM's files cannot be told to ignore interrupts", e);
      }
      return io;
    }
  }

  @Override
  public <T> @Nullable T createComponent(PluginContext context, Class<T> kind) {
    return kind.equals(IgniteWriteAheadLogManager.class)
        ? kind.cast(new Manager(((IgniteEx) context.grid()).context()))
        : null;
  }

  @Override
  public String name() {
    return "flotilla-commit-log";
  }

  @Override
  public String version() {
    return "1";
  }

  @Override
  public String copyright() {
    return "";
  }

  @Override
  @SuppressWarnings({"unchecked", "TypeParameterUnusedInFormals"})
  public <T extends IgnitePlugin> T plugin() {
    return (T) new IgnitePlugin() {};
  }

  @Override
  public void initExtensions(PluginContext context, ExtensionRegistry registry) {}

  @Override
  @SuppressWarnings("rawtypes")
  public @Nullable CachePluginProvider<?> createCacheProvider(CachePluginContext context) {
    return null;
  }

  @Override
  public void start(PluginContext context) {}

  @Override
  public void stop(boolean cancel) {}

  @Override
  public void onIgniteStart() {}

  @Override
  public void onIgniteStop(boolean cancel) {}

  @Override
  public @Nullable Serializable provideDiscoveryData(UUID node) {
    return null;
  }

  @Override
  public void receiveDiscoveryData(UUID node, @Nullable Serializable data) {}

  @Override
  @SuppressWarnings("deprecation")
  public void validateNewNode(ClusterNode node) {}
}
