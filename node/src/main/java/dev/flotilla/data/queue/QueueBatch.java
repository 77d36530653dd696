package dev.flotilla.data.queue;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;

/**
 * The messages that one commit sent to one partition: one entry of the grid, never changed.
 *
 * <p>As bytes, in big-endian order: version 1 (1), when it was sent (8), count (4); for each
 * message not-before time (8), priority (1), length of the key (2), key, length of the body (4),
 * body.
 *
 * @param first the sequence of the first message
 * @param sentAtMs when they were sent, by the sender's clock
 * @param messages at least one, of following sequences
 */
record QueueBatch(long first, long sentAtMs, List<Sent> messages) {

  private static final byte VERSION = 1;
  private static final int HEADER_BYTES = 13;
  private static final int MESSAGE_BYTES = 15;

  /** One message. */
  record Sent(long sequence, long notBeforeMs, int priority, String key, byte[] body) {}

  /** The sequence after its last. */
  long end() {
    return first + messages.size();
  }

  /** Bytes that a message takes. */
  static long bytesOf(Queue.Outgoing message) {
    return MESSAGE_BYTES + 3L * message.key().length() + message.body().length;
  }

  static byte[] encode(long sentAtMs, List<Queue.Outgoing> messages) {
    List<byte[]> keys = new ArrayList<>(messages.size());
    int size = HEADER_BYTES;
    for (Queue.Outgoing message : messages) {
      byte[] key = message.key().getBytes(StandardCharsets.UTF_8);
      keys.add(key);
      size += MESSAGE_BYTES + key.length + message.body().length;
    }
    ByteBuffer bytes = ByteBuffer.allocate(size);
    bytes.put(VERSION).putLong(sentAtMs).putInt(messages.size());
    for (int i = 0; i < messages.size(); i++) {
      Queue.Outgoing message = messages.get(i);
      byte[] key = keys.get(i);
      long delayMs = message.delay().toMillis();
      bytes.putLong(delayMs == 0 ? 0 : sentAtMs + delayMs).put((byte) message.priority());
      bytes.putShort((short) key.length).put(key);
      bytes.putInt(message.body().length).put(message.body());
    }
    return bytes.array();
  }

  static QueueBatch decode(long first, byte[] encoded) {
    ByteBuffer bytes = ByteBuffer.wrap(encoded);
    if (bytes.get() != VERSION) {
      throw new IllegalStateException("messages of version " + encoded[0]);
    }
    long sentAtMs = bytes.getLong();
    int count = bytes.getInt();
    List<Sent> messages = new ArrayList<>(count);
    for (int i = 0; i < count; i++) {
      long notBeforeMs = bytes.getLong();
      int priority = bytes.get();
      byte[] key = new byte[Short.toUnsignedInt(bytes.getShort())];
      bytes.get(key);
      byte[] body = new byte[bytes.getInt()];
      bytes.get(body);
      messages.add(
          new Sent(
              first + i,
              notBeforeMs,
              priority,
              key.length == 0 ? "" : new String(key, StandardCharsets.UTF_8),
              body));
    }
    return new QueueBatch(first, sentAtMs, messages);
  }
}
