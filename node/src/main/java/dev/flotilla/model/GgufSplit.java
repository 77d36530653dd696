package dev.flotilla.model;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.model.GgufHeader.TensorInfo;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Predicate;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A model in several GGUF files, {@code NAME-00001-of-0000N.gguf} and so on, as llama.cpp's
 * gguf-split cuts it: each has some of the tensors, the first one also the metadata.
 */
public final class GgufSplit {

  private static final Pattern NAME = Pattern.compile("(.*)-(\\d{5})-of-(\\d{5})\\.gguf");
  private static final int MAX_PARTS = 10_000;
  private static final String NUMBER = "split.no";
  private static final String COUNT = "split.count";
  private static final String TENSORS = "split.tensors.count";

  private GgufSplit() {}

  /** Whether a file's name is that of a part. */
  public static boolean isPart(Path file) {
    return NAME.matcher(String.valueOf(file.getFileName())).matches();
  }

  /** The name of the model that a part belongs to. */
  public static String nameOf(Path part) {
    return matched(part).group(1);
  }

  /** How many parts there are by this one's name; 1 to 10,000. */
  public static int countOf(Path part) {
    int count = Integer.parseInt(matched(part).group(3));
    if (count < 1 || count > MAX_PARTS) {
      throw WeightFiles.bad(part.toString(), "its name says that it is one of " + count + " files");
    }
    return count;
  }

  /** The file name of a part's sibling; {@code number} from 1. */
  public static String sibling(Path part, int number) {
    Matcher matcher = matched(part);
    return "%s-%05d-of-%s.gguf".formatted(matcher.group(1), number, matcher.group(3));
  }

  private static Matcher matched(Path part) {
    Matcher matcher = NAME.matcher(String.valueOf(part.getFileName()));
    if (!matcher.matches()) {
      throw new IllegalArgumentException(part + " is not named as a part");
    }
    return matcher;
  }

  /** A part, checked against what its name says. */
  private record PartFile(Path file, GgufHeader header) {}

  /**
   * Joins all parts into one file, whole or not at all, in bounded memory.
   *
   * @param part any of them, beside the others
   * @throws FlotillaException {@code NOT_FOUND} if one is missing, {@code BAD_FILE} if they do not
   *     belong together, {@code STORAGE}
   */
  public static void join(Path part, Path whole) {
    List<PartFile> parts = parts(part);
    GgufHeader first = parts.getFirst().header();
    List<TensorInfo> tensors = new ArrayList<>();
    parts.forEach(p -> tensors.addAll(p.header().tensors()));
    Predicate<String> kept = key -> !key.startsWith("split.") && !key.equals(GgufParser.ALIGNMENT);
    byte[] metadata = GgufHeader.metadataBytes(parts.getFirst().file(), kept);
    int keys = (int) first.metadata().keySet().stream().filter(kept).count();
    byte[] head = GgufWriter.head(keys, metadata, tensors);
    WeightFiles.writeAtomically(
        whole,
        out -> {
          WeightFiles.writeFully(out, ByteBuffer.wrap(head));
          for (PartFile p : parts) {
            copyTensors(p, out);
          }
        });
  }

  private static void copyTensors(PartFile part, FileChannel out) throws IOException {
    try (FileChannel in = FileChannel.open(part.file(), StandardOpenOption.READ)) {
      for (TensorInfo tensor : part.header().tensors()) {
        long end = tensor.offset() + tensor.bytes();
        for (long at = tensor.offset(); at < end; ) {
          long copied = in.transferTo(at, end - at, out);
          if (copied <= 0) {
            throw new IOException(part.file() + " became shorter while it was read");
          }
          at += copied;
        }
        int padding = (int) (GgufWriter.padded(tensor.bytes()) - tensor.bytes());
        WeightFiles.writeFully(out, ByteBuffer.allocate(padding));
      }
    }
  }

  private static List<PartFile> parts(Path part) {
    int count = countOf(part);
    List<PartFile> parts = new ArrayList<>();
    Set<String> names = new HashSet<>();
    for (int number = 1; number <= count; number++) {
      Path file = part.resolveSibling(sibling(part, number));
      if (!Files.exists(file)) {
        throw new FlotillaException(
            Code.NOT_FOUND,
            "no file " + file + ", part " + number + " of " + count + " of the model",
            "Put all parts into one folder");
      }
      GgufHeader header = GgufHeader.read(file);
      require(file, header, NUMBER, number - 1);
      require(file, header, COUNT, count);
      for (TensorInfo tensor : header.tensors()) {
        if (!names.add(tensor.name())) {
          throw WeightFiles.bad(file.toString(), "tensor " + tensor.name() + " is in two parts");
        }
      }
      parts.add(new PartFile(file, header));
    }
    require(parts.getFirst().file(), parts.getFirst().header(), TENSORS, names.size());
    return parts;
  }

  private static void require(Path file, GgufHeader header, String key, long wanted) {
    Object value = header.metadata().getOrDefault(key, "missing");
    if (!value.equals(wanted)) {
      throw WeightFiles.bad(
          file.toString(),
          key + " is " + value + ", not " + wanted,
          "Fetch all parts of one model again");
    }
  }

  /** Refuses a part that stands for a whole model. */
  static void requireWhole(Map<String, Object> metadata) {
    if (metadata.get(COUNT) instanceof Long count && count > 1) {
      throw WeightFiles.bad(
          "GGUF model",
          "it is one of " + count + " parts (" + COUNT + ")",
          "Keep all parts in one folder under the names NAME-00001-of-0000N.gguf, and name one");
    }
  }
}
