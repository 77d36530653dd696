package dev.flotilla.data;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.IoReason;
import java.io.BufferedInputStream;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.zip.CRC32;

/**
 * How changes lie in a file: frames of a length, a CRC-32 and that many bytes. What was cut off in
 * the middle of its last frame ends with the one before; a frame whose check does not hold is
 * damage.
 */
final class JournalFrames {

  /** What a frame holds. */
  sealed interface Frame {}

  /**
   * The first frame of each file.
   *
   * @param backup whose changes these are
   * @param node who wrote it
   * @param sessionMs since when this node has written without a gap
   * @param sequence of this file in the session, from 0
   */
  record Header(String backup, String node, long sessionMs, int sequence) implements Frame {}

  /** Who writes to the grid under one transaction. */
  record Transaction(int topology, int node, long order) {}

  /**
   * One key's change.
   *
   * @param partition and the change's number in it give the order: it is the same on all copies
   * @param valueType 0 if the key was removed
   * @param expiresMs 0 for never
   */
  record Change(
      String cache,
      String incarnation,
      int partition,
      long number,
      byte keyType,
      byte[] key,
      byte valueType,
      byte[] value,
      long expiresMs) {}

  /** What one transaction changed on one node, at one moment. */
  record Changes(Transaction transaction, long atMs, List<Change> changes) implements Frame {}

  /**
   * A cache or table.
   *
   * @param incarnation another each time one of that name is made
   * @param form the engine's description of it
   */
  record Definition(String name, String incarnation, byte[] form) {}

  /** An entry of the registry that says what data means. */
  record Meaning(String kind, String name, byte[] value) {}

  /** What there was from a moment on. */
  record Definitions(long atMs, List<Definition> caches, List<Meaning> registry) implements Frame {}

  /** The engine's descriptions of the types of rows. */
  record Types(List<byte[]> types) implements Frame {}

  /**
   * Everything up to a moment stands before this.
   *
   * @param members of the grid then
   * @param segment and the offset in it: where the engine's log was then
   */
  record UpTo(long atMs, int members, long segment, int offset) implements Frame {}

  private static final int FRAME_BYTES_MAX = 1 << 30;

  private JournalFrames() {}

  /** A frame as it stands in the file. */
  static byte[] bytes(Frame frame) {
    try {
      ByteArrayOutputStream body = new ByteArrayOutputStream();
      write(new DataOutputStream(body), frame);
      CRC32 check = new CRC32();
      check.update(body.toByteArray());
      ByteArrayOutputStream whole = new ByteArrayOutputStream();
      DataOutputStream out = new DataOutputStream(whole);
      out.writeInt(body.size());
      out.writeInt((int) check.getValue());
      body.writeTo(out);
      return whole.toByteArray();
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
  }

  private static void write(DataOutputStream out, Frame frame) throws IOException {
    switch (frame) {
      case Header header -> {
        out.writeByte('H');
        out.writeUTF(header.backup());
        out.writeUTF(header.node());
        out.writeLong(header.sessionMs());
        out.writeInt(header.sequence());
      }
      case Changes changes -> {
        out.writeByte('C');
        out.writeInt(changes.transaction().topology());
        out.writeInt(changes.transaction().node());
        out.writeLong(changes.transaction().order());
        out.writeLong(changes.atMs());
        out.writeInt(changes.changes().size());
        for (Change change : changes.changes()) {
          out.writeUTF(change.cache());
          out.writeUTF(change.incarnation());
          out.writeInt(change.partition());
          out.writeLong(change.number());
          out.writeByte(change.keyType());
          block(out, change.key());
          out.writeByte(change.valueType());
          block(out, change.value());
          out.writeLong(change.expiresMs());
        }
      }
      case Definitions definitions -> {
        out.writeByte('D');
        out.writeLong(definitions.atMs());
        out.writeInt(definitions.caches().size());
        for (Definition each : definitions.caches()) {
          out.writeUTF(each.name());
          out.writeUTF(each.incarnation());
          block(out, each.form());
        }
        out.writeInt(definitions.registry().size());
        for (Meaning each : definitions.registry()) {
          out.writeUTF(each.kind());
          out.writeUTF(each.name());
          block(out, each.value());
        }
      }
      case Types types -> {
        out.writeByte('T');
        out.writeInt(types.types().size());
        for (byte[] type : types.types()) {
          block(out, type);
        }
      }
      case UpTo upTo -> {
        out.writeByte('U');
        out.writeLong(upTo.atMs());
        out.writeInt(upTo.members());
        out.writeLong(upTo.segment());
        out.writeInt(upTo.offset());
      }
    }
  }

  private static void block(DataOutputStream out, byte[] bytes) throws IOException {
    out.writeInt(bytes.length);
    out.write(bytes);
  }

  /**
   * Hands over a file's frames, up to one that was cut off.
   *
   * @throws FlotillaException {@code BAD_FILE} if a frame is damaged, {@code STORAGE} if the file
   *     cannot be read
   */
  static void read(Path file, Consumer<Frame> each) {
    try (DataInputStream in =
        new DataInputStream(new BufferedInputStream(Files.newInputStream(file), 1 << 16))) {
      while (true) {
        Optional<byte[]> body = body(in, file);
        if (body.isEmpty()) {
          return;
        }
        each.accept(frame(new DataInputStream(new ByteArrayInputStream(body.get()))));
      }
    } catch (IOException e) {
      throw new FlotillaException(
          Code.STORAGE,
          "cannot read " + file + ": " + IoReason.of(e),
          "Check the disk and its permissions.",
          e);
    }
  }

  private static Optional<byte[]> body(DataInputStream in, Path file) throws IOException {
    try {
      int length = in.readInt();
      int check = in.readInt();
      if (length <= 0 || length > FRAME_BYTES_MAX) {
        throw damaged(file);
      }
      byte[] body = in.readNBytes(length);
      if (body.length < length) {
        return Optional.empty();
      }
      CRC32 actual = new CRC32();
      actual.update(body);
      if ((int) actual.getValue() != check) {
        throw damaged(file);
      }
      return Optional.of(body);
    } catch (EOFException end) {
      return Optional.empty();
    }
  }

  private static FlotillaException damaged(Path file) {
    return new FlotillaException(
        Code.BAD_FILE,
        "a backup's list of changes is damaged: " + file,
        "Bring back that file from a copy, or take it away where other nodes have the same changes.");
  }

  private static Frame frame(DataInputStream in) throws IOException {
    int kind = in.readUnsignedByte();
    return switch (kind) {
      case 'H' -> new Header(in.readUTF(), in.readUTF(), in.readLong(), in.readInt());
      case 'U' -> new UpTo(in.readLong(), in.readInt(), in.readLong(), in.readInt());
      case 'T' -> {
        List<byte[]> types = new ArrayList<>();
        for (int left = in.readInt(); left > 0; left--) {
          types.add(block(in));
        }
        yield new Types(types);
      }
      case 'D' -> {
        long atMs = in.readLong();
        List<Definition> caches = new ArrayList<>();
        for (int left = in.readInt(); left > 0; left--) {
          caches.add(new Definition(in.readUTF(), in.readUTF(), block(in)));
        }
        List<Meaning> registry = new ArrayList<>();
        for (int left = in.readInt(); left > 0; left--) {
          registry.add(new Meaning(in.readUTF(), in.readUTF(), block(in)));
        }
        yield new Definitions(atMs, caches, registry);
      }
      case 'C' -> {
        Transaction transaction = new Transaction(in.readInt(), in.readInt(), in.readLong());
        long atMs = in.readLong();
        List<Change> changes = new ArrayList<>();
        for (int left = in.readInt(); left > 0; left--) {
          changes.add(
              new Change(
                  in.readUTF(),
                  in.readUTF(),
                  in.readInt(),
                  in.readLong(),
                  in.readByte(),
                  block(in),
                  in.readByte(),
                  block(in),
                  in.readLong()));
        }
        yield new Changes(transaction, atMs, changes);
      }
      default -> throw new IOException("a frame of kind " + kind);
    };
  }

  private static byte[] block(DataInputStream in) throws IOException {
    return in.readNBytes(in.readInt());
  }
}
