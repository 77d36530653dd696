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
import org.apache.ignite.internal.pagemem.wal.record.DataRecord;
import org.apache.ignite.internal.pagemem.wal.record.WALRecord;
import org.apache.ignite.internal.processors.cache.persistence.StorageException;
import org.apache.ignite.internal.processors.cache.persistence.file.FileIO;
import org.apache.ignite.internal.processors.cache.persistence.file.FileIOFactory;
import org.apache.ignite.internal.processors.cache.persistence.file.RandomAccessFileIO;
import org.apache.ignite.internal.processors.cache.persistence.wal.FileWriteAheadLogManager;
import org.apache.ignite.internal.processors.cache.persistence.wal.WALPointer;
import org.apache.ignite.internal.processors.cluster.BaselineTopology;
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
 * <p>A commit logs what it changes and forces that. Then it logs that the transaction has
 * committed, forces that too, and only then answers: recovery leaves out what transactions changed
 * that were prepared, if the log does not say that they have committed. So the second force makes
 * the commit last, and takes along all that was logged before; the first is left out here.
 *
 * <p>For that the second must come. The engine leaves it out on a node that is not in its baseline,
 * and then nothing is left out here. Where a commit fails between the two, it is not acknowledged.
 */
final class CommitLog implements PluginProvider<PluginConfiguration> {

  /** The place of a transaction's changes, which are forced along with its end. */
  private static final class Changes extends WALPointer {
    Changes(WALPointer its) {
      super(its.index(), its.fileOffset(), its.length());
    }
  }

  private static final class Manager extends FileWriteAheadLogManager {
    private final GridKernalContext context;

    Manager(GridKernalContext context) {
      super(context);
      this.context = context;
    }

    @Override
    public @Nullable WALPointer log(WALRecord entry) throws IgniteCheckedException {
      WALPointer place = super.log(entry);
      return place != null && isOfTransaction(entry) ? new Changes(place) : place;
    }

    private static boolean isOfTransaction(WALRecord entry) {
      if (!(entry instanceof DataRecord data)) {
        return false;
      }
      for (int i = 0; i < data.entryCount(); i++) {
        if (data.get(i).nearXidVersion() == null) {
          return false;
        }
      }
      return true;
    }

    @Override
    public WALPointer flush(@Nullable WALPointer place, boolean explicitly)
        throws IgniteCheckedException, StorageException {
      if (place instanceof Changes changes && !explicitly && endsAreLogged()) {
        return changes;
      }
      return super.flush(place, explicitly);
    }

    /** As the engine decides it. */
    private boolean endsAreLogged() {
      BaselineTopology baseline = context.state().clusterState().baselineTopology();
      return baseline != null
          && baseline.consistentIds().contains(context.discovery().localNode().consistentId());
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
