package dev.flotilla.gateway;

import java.io.BufferedInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetAddress;
import java.net.Socket;
import java.net.SocketException;
import java.net.SocketTimeoutException;
import java.nio.charset.StandardCharsets;

/** A bare socket, for what well-behaved clients never send. */
final class RawHttp implements AutoCloseable {

  private final Socket socket;
  private final InputStream in;

  RawHttp(int port) throws IOException {
    socket = new Socket(InetAddress.getLoopbackAddress(), port);
    socket.setSoTimeout(10_000);
    in = new BufferedInputStream(socket.getInputStream());
  }

  RawHttp send(String text) throws IOException {
    return send(text.getBytes(StandardCharsets.ISO_8859_1));
  }

  RawHttp send(byte[] bytes) throws IOException {
    socket.getOutputStream().write(bytes);
    socket.getOutputStream().flush();
    return this;
  }

  /** Everything until the server closes. */
  String readToEnd() throws IOException {
    ByteArrayOutputStream all = new ByteArrayOutputStream();
    byte[] buffer = new byte[8192];
    try {
      for (int n = in.read(buffer); n >= 0; n = in.read(buffer)) {
        all.write(buffer, 0, n);
      }
    } catch (SocketException reset) {
      // A reset is an end, too.
    }
    return all.toString(StandardCharsets.UTF_8);
  }

  /** What arrives until it holds a text. */
  String readUntil(String end) throws IOException {
    StringBuilder all = new StringBuilder();
    while (all.indexOf(end) < 0) {
      int c = in.read();
      if (c < 0) {
        throw new IOException("ended after: " + all);
      }
      all.append((char) c);
    }
    return all.toString();
  }

  /** Whether the server closes within the time. */
  boolean closedWithin(int milliseconds) throws IOException {
    socket.setSoTimeout(milliseconds);
    try {
      while (in.read() >= 0) {
        // What is still on the way.
      }
      return true;
    } catch (SocketTimeoutException e) {
      return false;
    } catch (SocketException e) {
      return true;
    }
  }

  /** Leaves with a reset, as a killed process may. */
  void abort() throws IOException {
    socket.setSoLinger(true, 0);
    socket.close();
  }

  @Override
  public void close() throws IOException {
    socket.close();
  }
}
