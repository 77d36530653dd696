package dev.flotilla.data;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.cluster.Cluster;
import dev.flotilla.cluster.NodeInfo;
import dev.flotilla.data.proto.BackupFolderReply;
import dev.flotilla.data.proto.BackupFolderRequest;
import dev.flotilla.data.proto.BackupFoldersGrpc;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.util.concurrent.TimeUnit;

/**
 * Tries the folder of a backup on every node before anything starts, for what the engine would find
 * out late, in the middle of it, and say less well.
 */
final class BackupFolders extends BackupFoldersGrpc.BackupFoldersImplBase {

  private static final long ASK_MS = 5_000;

  private final Cluster cluster;

  BackupFolders(Cluster cluster) {
    this.cluster = cluster;
  }

  /**
   * Makes the folder where it is missing, and writes a file in it.
   *
   * @throws FlotillaException {@code INVALID} naming the node that could not, and why; {@code
   *     UNAVAILABLE} naming one that does not answer though it is not counted as lost
   */
  void check(String folder, String backup) {
    for (NodeInfo node : cluster.nodes()) {
      if (node.state() == NodeInfo.State.LOST) {
        continue;
      }
      boolean own = node.id().equals(cluster.self());
      String problem = own ? problem(folder, backup) : ask(node, folder, backup);
      if (!problem.isEmpty()) {
        throw new FlotillaException(
            Code.INVALID,
            "node " + node.name() + " cannot write backup " + backup + ": " + problem,
            "Nothing was started. Name a folder that every node can write to, or none for the"
                + " nodes' own.");
      }
    }
  }

  private String ask(NodeInfo node, String folder, String backup) {
    try {
      return BackupFoldersGrpc.newBlockingStub(cluster.channel(node.id()))
          .withDeadlineAfter(ASK_MS, TimeUnit.MILLISECONDS)
          .check(BackupFolderRequest.newBuilder().setFolder(folder).setBackup(backup).build())
          .getProblem();
    } catch (StatusRuntimeException | FlotillaException e) {
      throw new FlotillaException(
          Code.UNAVAILABLE,
          "node " + node.name() + " does not say whether it can write backup " + backup,
          "Nothing was started. Try again; once the node counts as lost, it is left out and named.",
          e);
    }
  }

  @Override
  public void check(BackupFolderRequest request, StreamObserver<BackupFolderReply> reply) {
    reply.onNext(
        BackupFolderReply.newBuilder()
            .setProblem(problem(request.getFolder(), request.getBackup()))
            .build());
    reply.onCompleted();
  }

  /** What is in the way on this node; empty if nothing. */
  static String problem(String folder, String backup) {
    try {
      Path path = Path.of(folder);
      if (!Files.exists(path, LinkOption.NOFOLLOW_LINKS)) {
        Path parent = path.getParent();
        if (parent == null || !Files.isDirectory(parent)) {
          return parent != null && Files.exists(parent)
              ? parent + " is no folder"
              : "there is no folder " + parent;
        }
        Files.createDirectory(path);
      }
      if (!Files.isDirectory(path)) {
        return path + " is no folder";
      }
      if (Files.exists(path.resolve(backup))) {
        return path.resolve(backup) + " is there already";
      }
      Files.delete(Files.createTempFile(path, ".writable-", ""));
      return "";
    } catch (InvalidPathException e) {
      return "'" + folder + "' is no path";
    } catch (IOException e) {
      return folder + " cannot be written to (" + reason(e) + ")";
    }
  }

  private static String reason(IOException e) {
    return switch (e) {
      case java.nio.file.AccessDeniedException _ -> "it may not be";
      case java.nio.file.NoSuchFileException _ -> "it cannot be made";
      case java.nio.file.FileSystemException known when known.getReason() != null ->
          known.getReason();
      default -> String.valueOf(e.getMessage());
    };
  }
}
