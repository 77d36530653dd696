package dev.flotilla.gateway;

import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.net.InetAddress;
import java.net.Socket;
import java.net.SocketTimeoutException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Set;

/** HTTP/2 by prior knowledge, RFC 9113, as few frames as a test needs; headers are literals. */
final class RawHttp2 implements AutoCloseable {

  private static final int DATA = 0;
  private static final int HEADERS = 1;
  private static final int RST_STREAM = 3;
  private static final int SETTINGS = 4;
  private static final int GOAWAY = 7;
  private static final int END_STREAM = 1;
  private static final int END_HEADERS = 4;
  private static final int ACK = 1;

  private final Socket socket;
  private final DataInputStream in;
  private final String key;
  private final Map<Integer, StringBuilder> bodies = new HashMap<>();
  private final Set<Integer> ended = new HashSet<>();
  private boolean goneAway;

  RawHttp2(int port, String key) throws IOException {
    this.key = key;
    socket = new Socket(InetAddress.getLoopbackAddress(), port);
    socket.setSoTimeout(10_000);
    in = new DataInputStream(socket.getInputStream());
    socket
        .getOutputStream()
        .write("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".getBytes(StandardCharsets.US_ASCII));
    frame(SETTINGS, 0, 0, new byte[0]);
  }

  private void frame(int type, int flags, int stream, byte[] payload) throws IOException {
    ByteBuffer frame = ByteBuffer.allocate(9 + payload.length);
    frame.put((byte) (payload.length >> 16)).putShort((short) payload.length);
    frame.put((byte) type).put((byte) flags).putInt(stream).put(payload);
    socket.getOutputStream().write(frame.array());
  }

  private static void literal(ByteArrayOutputStream out, String name, String value) {
    out.write(0);
    for (String text : new String[] {name, value}) {
      out.write(text.length());
      out.writeBytes(text.getBytes(StandardCharsets.US_ASCII));
    }
  }

  void post(int stream, String path, String body) throws IOException {
    ByteArrayOutputStream headers = new ByteArrayOutputStream();
    literal(headers, ":method", "POST");
    literal(headers, ":scheme", "http");
    literal(headers, ":authority", "localhost");
    literal(headers, ":path", path);
    literal(headers, "authorization", "Bearer " + key);
    frame(HEADERS, END_HEADERS, stream, headers.toByteArray());
    frame(DATA, END_STREAM, stream, body.getBytes(StandardCharsets.UTF_8));
  }

  void reset(int stream) throws IOException {
    frame(RST_STREAM, 0, stream, new byte[] {0, 0, 0, 8});
  }

  private void readFrame() throws IOException {
    int length = in.readUnsignedByte() << 16 | in.readUnsignedShort();
    int type = in.readUnsignedByte();
    int flags = in.readUnsignedByte();
    int stream = in.readInt();
    byte[] payload = in.readNBytes(length);
    switch (type) {
      case DATA ->
          bodies
              .computeIfAbsent(stream, s -> new StringBuilder())
              .append(new String(payload, StandardCharsets.UTF_8));
      case SETTINGS -> {
        if ((flags & ACK) == 0) {
          frame(SETTINGS, ACK, 0, new byte[0]);
        }
      }
      case GOAWAY -> goneAway = true;
      default -> {}
    }
    if ((type == DATA || type == HEADERS) && (flags & END_STREAM) != 0) {
      ended.add(stream);
    }
  }

  void awaitData(int stream) throws IOException {
    while (!bodies.containsKey(stream)) {
      readFrame();
    }
  }

  String body(int stream) throws IOException {
    while (!ended.contains(stream)) {
      readFrame();
    }
    return bodies.getOrDefault(stream, new StringBuilder()).toString();
  }

  /** Opens and resets streams; says whether the server ended the connection. */
  boolean resetStorm(String path, String body, int streams) throws IOException {
    try {
      for (int i = 0; i < streams; i++) {
        post(1 + 2 * i, path, body);
        reset(1 + 2 * i);
      }
      while (!goneAway) {
        readFrame();
      }
    } catch (SocketTimeoutException e) {
      return false;
    } catch (IOException e) {
      return true;
    }
    return true;
  }

  @Override
  public void close() throws IOException {
    socket.close();
  }
}
