package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.IoReason;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpBlobs;
import dev.flotilla.data.blobs.Blobs;
import dev.flotilla.data.blobs.Blobs.Blob;
import dev.flotilla.data.blobs.Blobs.NodeState;
import dev.flotilla.data.blobs.Blobs.Reference;
import dev.flotilla.data.blobs.Blobs.Upload;
import java.io.FilterInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.channels.Channels;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Instant;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Blobs from the shell. */
@Command(
    name = "blob",
    description = "Keep and fetch contents of any size.",
    mixinStandardHelpOptions = true,
    synopsisSubcommandLabel = "COMMAND",
    subcommands = {
      BlobCommand.Put.class,
      BlobCommand.Get.class,
      BlobCommand.ListAll.class,
      BlobCommand.Remove.class,
      BlobCommand.Name.class,
      BlobCommand.Quota.class,
      BlobCommand.Scrub.class,
      BlobCommand.Stats.class
    })
final class BlobCommand {

  private static final int PIECE_BYTES = 64 << 10;
  private static final int RETRIES = 5;

  /** What each of them starts with. */
  abstract static class OfBlobs extends ClientCommand {
    @Option(names = "--bucket", paramLabel = "BUCKET", description = "Default: default.")
    String bucket = Blobs.DEFAULT_BUCKET;

    Blobs blobs() {
      return new HttpBlobs(client());
    }

    int say(Object value, String text) {
      System.out.println(asJson ? Client.snakeCase(value).toPrettyString() : text);
      return 0;
    }

    Reference existing(String name) {
      return blobs()
          .reference(bucket, name)
          .orElseThrow(
              () ->
                  new FlotillaException(
                      Code.NOT_FOUND,
                      "there is no " + name + " in bucket " + bucket,
                      "`flotilla blob ls` lists what there is."));
    }

    void states(List<NodeState> nodes) {
      List<List<String>> rows = new ArrayList<>();
      for (NodeState node : nodes) {
        rows.add(
            List.of(
                node.node(),
                node.answers() ? Long.toString(node.chunks()) : "no answer",
                Long.toString(node.bytes()),
                Long.toString(node.freeBytes()),
                Long.toString(node.damaged()),
                Long.toString(node.repaired()),
                (node.scrubbing() ? "running, " : "done, ") + node.scrubbed()));
      }
      table(List.of("NODE", "CHUNKS", "BYTES", "FREE", "DAMAGED", "REPAIRED", "SCRUB"), rows);
    }
  }

  private static ProgressBar bar(String task, long total) {
    return new ProgressBarBuilder()
        .setTaskName(task)
        .setInitialMax(total)
        .setUnit("MiB", 1 << 20)
        .showSpeed()
        .setStyle(ProgressBarStyle.UNICODE_BLOCK)
        .build();
  }

  private static MessageDigest sha256() {
    try {
      return MessageDigest.getInstance("SHA-256");
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every JDK has SHA-256", e);
    }
  }

  private static FlotillaException unusable(Path file, IOException e) {
    return new FlotillaException(
        Code.STORAGE,
        "cannot use " + file + ": " + IoReason.of(e),
        "Check the path and the disk.",
        e);
  }

  @Command(
      name = "put",
      description = "Keep a file, or standard input.",
      mixinStandardHelpOptions = true)
  static final class Put extends OfBlobs {
    @Parameters(paramLabel = "FILE", description = "A file, or - for standard input.")
    private String source = "-";

    @Option(names = "--name", paramLabel = "NAME", description = "Also give it a name.")
    private Optional<String> name = Optional.empty();

    @Override
    public Integer call() {
      Blob blob = source.equals("-") ? blobs().put(bucket, System.in) : file(Path.of(source));
      name.ifPresent(
          given -> blobs().name(bucket, given, blob.digest(), Optional.empty(), Optional.empty()));
      return say(blob, blob.digest());
    }

    /** Goes on where it was when the connection or the node is lost, and checks the digest. */
    private Blob file(Path file) {
      Blobs blobs = blobs();
      try {
        long size = Files.size(file);
        Optional<ProgressBar> bar =
            Terminal.attached() ? Optional.of(bar("put", size)) : Optional.empty();
        try {
          String digest = digest(file);
          Upload upload = blobs.startUpload(bucket);
          int failures = 0;
          while (upload.offset() < size) {
            long offset = upload.offset();
            try (InputStream content = Files.newInputStream(file)) {
              content.skipNBytes(offset);
              upload =
                  blobs.append(
                      upload.id(),
                      offset,
                      new FilterInputStream(content) {
                        @Override
                        public int read(byte[] bytes, int at, int most) throws IOException {
                          int count = super.read(bytes, at, most);
                          bar.ifPresent(b -> b.stepBy(Math.max(0, count)));
                          return count;
                        }
                      });
            } catch (FlotillaException e) {
              if (e.code() != Code.UNAVAILABLE || ++failures > RETRIES) {
                throw e;
              }
              pause(failures);
              upload = blobs.upload(upload.id());
              long reached = upload.offset();
              bar.ifPresent(b -> b.stepTo(reached));
            }
          }
          return blobs.complete(upload.id(), Optional.of(digest));
        } finally {
          bar.ifPresent(ProgressBar::close);
        }
      } catch (IOException e) {
        throw unusable(file, e);
      }
    }

    private static String digest(Path file) throws IOException {
      MessageDigest digest = sha256();
      try (InputStream content = Files.newInputStream(file)) {
        byte[] piece = new byte[PIECE_BYTES];
        for (int count = content.read(piece); count >= 0; count = content.read(piece)) {
          digest.update(piece, 0, count);
        }
      }
      return "sha256:" + HexFormat.of().formatHex(digest.digest());
    }
  }

  private static void pause(int failures) {
    try {
      Thread.sleep(500L * failures);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
      throw new FlotillaException(Code.FAILED, "interrupted", "", e);
    }
  }

  @Command(
      name = "get",
      description = "Fetch a blob; a file that is there in part is completed.",
      mixinStandardHelpOptions = true)
  static final class Get extends OfBlobs {
    @Parameters(paramLabel = "DIGEST|NAME", description = "What to fetch.")
    private String what = "";

    @Option(names = "-o", paramLabel = "FILE", description = "Where to; default: standard output.")
    private Optional<Path> output = Optional.empty();

    @Override
    public Integer call() {
      String digest = what.startsWith("sha256:") ? what : existing(what).digest();
      Blob blob =
          blobs()
              .find(digest)
              .orElseThrow(
                  () -> new FlotillaException(Code.NOT_FOUND, "there is no blob " + digest, ""));
      try {
        if (output.isEmpty()) {
          try (InputStream content = blobs().read(digest, 0, Long.MAX_VALUE)) {
            var _ = content.transferTo(System.out);
            System.out.flush();
          }
          return 0;
        }
        fetch(blob, output.get());
        return say(blob, "fetched " + blob.size() + " bytes to " + output.get());
      } catch (IOException e) {
        throw unusable(output.orElse(Path.of("-")), e);
      }
    }

    /**
     * Into FILE.part, which a later try goes on with; it gets its name when its digest is right.
     */
    private void fetch(Blob blob, Path file) throws IOException {
      Path part = file.resolveSibling(file.getFileName() + ".part");
      MessageDigest whole = sha256();
      byte[] piece = new byte[PIECE_BYTES];
      Optional<ProgressBar> bar =
          Terminal.attached() ? Optional.of(bar("get", blob.size())) : Optional.empty();
      try (FileChannel channel =
          FileChannel.open(
              part, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
        if (channel.size() > blob.size()) {
          var _ = channel.truncate(0);
        }
        InputStream before = Channels.newInputStream(channel);
        for (int count = before.read(piece); count >= 0; count = before.read(piece)) {
          whole.update(piece, 0, count);
        }
        OutputStream out = Channels.newOutputStream(channel);
        int failures = 0;
        while (channel.size() < blob.size()) {
          long reached = channel.size();
          bar.ifPresent(b -> b.stepTo(reached));
          try (InputStream content = blobs().read(blob.digest(), reached, Long.MAX_VALUE)) {
            for (int count = receive(content, piece); count >= 0; count = receive(content, piece)) {
              out.write(piece, 0, count);
              whole.update(piece, 0, count);
              int step = count;
              bar.ifPresent(b -> b.stepBy(step));
            }
          } catch (UncheckedIOException | FlotillaException e) {
            boolean passing =
                e instanceof UncheckedIOException
                    || (e instanceof FlotillaException known && known.code() == Code.UNAVAILABLE);
            if (!passing || ++failures > RETRIES) {
              throw e;
            }
            pause(failures);
          }
        }
        channel.force(true);
      } finally {
        bar.ifPresent(ProgressBar::close);
      }
      if (!blob.digest().equals("sha256:" + HexFormat.of().formatHex(whole.digest()))) {
        Files.delete(part);
        throw new FlotillaException(
            Code.BAD_FILE,
            "what was in " + part + " does not belong to " + blob.digest(),
            "It was deleted; fetch again.");
      }
      Files.move(part, file, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    }

    private static int receive(InputStream content, byte[] piece) {
      try {
        return content.read(piece);
      } catch (IOException e) {
        throw new UncheckedIOException("the connection was lost", e);
      }
    }
  }

  @Command(name = "ls", description = "List a bucket.", mixinStandardHelpOptions = true)
  static final class ListAll extends OfBlobs {
    @Parameters(arity = "0..1", paramLabel = "PREFIX", description = "Names that begin so.")
    private String prefix = "";

    @Override
    public Integer call() {
      List<Reference> found = blobs().list(bucket, prefix, "", 10_000);
      if (asJson) {
        return say(found, "");
      }
      List<List<String>> rows = new ArrayList<>();
      for (Reference one : found) {
        rows.add(
            List.of(
                one.name(),
                Long.toString(one.size()),
                Long.toString(one.version()),
                Instant.ofEpochMilli(one.updatedAtMs()).toString(),
                one.digest()));
      }
      table(List.of("NAME", "BYTES", "VERSION", "CHANGED", "DIGEST"), rows);
      return 0;
    }
  }

  @Command(
      name = "rm",
      description = "Take a name or a digest out of a bucket.",
      mixinStandardHelpOptions = true)
  static final class Remove extends OfBlobs {
    @Parameters(paramLabel = "DIGEST|NAME", description = "What to remove.")
    private String what = "";

    @Override
    public Integer call() {
      if (!blobs().remove(bucket, what, Optional.empty())) {
        throw new FlotillaException(
            Code.NOT_FOUND, "there is no " + what + " in bucket " + bucket, "");
      }
      return say(Map.of("removed", true), "removed " + what);
    }
  }

  @Command(name = "name", description = "Give a blob a name.", mixinStandardHelpOptions = true)
  static final class Name extends OfBlobs {
    @Parameters(index = "0", paramLabel = "NAME", description = "Parts are joined by slashes.")
    private String name = "";

    @Parameters(index = "1", paramLabel = "DIGEST", description = "The blob.")
    private String digest = "";

    @Option(
        names = "--version",
        paramLabel = "N",
        description = "Only if the name has this version now; 0: if it is new.")
    private Optional<Long> version = Optional.empty();

    @Override
    public Integer call() {
      Reference made = blobs().name(bucket, name, digest, version, Optional.empty());
      return say(made, name + " is version " + made.version());
    }
  }

  @Command(
      name = "quota",
      description = "Show or set what a bucket may hold.",
      mixinStandardHelpOptions = true)
  static final class Quota extends OfBlobs {
    @Option(names = "--bytes", paramLabel = "N", description = "At most so many bytes.")
    private Optional<Long> bytes = Optional.empty();

    @Option(names = "--count", paramLabel = "N", description = "At most so many references.")
    private Optional<Long> count = Optional.empty();

    @Override
    public Integer call() {
      Blobs.Quota quota = blobs().quota(bucket);
      if (bytes.isPresent() || count.isPresent()) {
        quota =
            blobs().limit(bucket, bytes.orElse(quota.bytesMax()), count.orElse(quota.countMax()));
      }
      return say(
          quota,
          quota.bytes()
              + " of "
              + most(quota.bytesMax())
              + " bytes, "
              + quota.count()
              + " of "
              + most(quota.countMax())
              + " references");
    }

    private static String most(long max) {
      return max == Long.MAX_VALUE ? "any" : Long.toString(max);
    }
  }

  @Command(
      name = "scrub",
      description = "Have all nodes read their chunks and compare them.",
      mixinStandardHelpOptions = true)
  static final class Scrub extends OfBlobs {
    @Override
    public Integer call() {
      List<NodeState> nodes = blobs().scrub();
      if (asJson) {
        return say(nodes, "");
      }
      states(nodes);
      return 0;
    }
  }

  @Command(name = "stats", description = "Show each node's part.", mixinStandardHelpOptions = true)
  static final class Stats extends OfBlobs {
    @Override
    public Integer call() {
      List<NodeState> nodes = blobs().nodes();
      if (asJson) {
        return say(nodes, "");
      }
      states(nodes);
      return 0;
    }
  }
}
