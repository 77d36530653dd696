package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.net.Socket;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/**
 * The join protocol: one request and one reply over TLS that only the server authenticates, each as
 * a length and that many bytes of JSON.
 *
 * <p>The joiner knows the cluster by the fingerprint in its token, so it talks to nobody else; the
 * cluster knows the joiner by the token's secret, which is used up by a conditional commit. What
 * the joiner gets is a certificate for a key that never left its machine.
 */
final class Joining {

  static final int MAX_BYTES = 64 << 10;
  static final Duration MAX_CLOCK_DIFFERENCE = Duration.ofSeconds(30);

  private Joining() {}

  /**
   * @param asksAbout a node's id, of which it is only asked whether it was removed, for the others
   *     refuse its certificate then, and how often it was started. Nothing else counts in such a
   *     request, and the answer is a refusal of code {@code CONFLICT} if it was removed
   * @param secret of the token
   * @param certificateRequest PKCS #10
   * @param clockMs the joiner's clock, milliseconds since 1970
   */
  record Request(
      Optional<String> asksAbout,
      byte[] secret,
      byte[] certificateRequest,
      String name,
      String host,
      int httpPort,
      String version,
      long clockMs) {}

  /**
   * Exactly one of them is there.
   *
   * @param starts how often the node that was asked about was started, as far as is known
   */
  record Reply(Optional<Welcome> welcome, Optional<Refusal> refusal, Optional<Long> starts) {

    static Reply of(Welcome welcome) {
      return new Reply(Optional.of(welcome), Optional.empty(), Optional.empty());
    }

    static Reply ofStarts(long starts) {
      return new Reply(Optional.empty(), Optional.empty(), Optional.of(starts));
    }

    static Reply of(FlotillaException refusal) {
      return new Reply(
          Optional.empty(),
          Optional.of(
              new Refusal(refusal.code(), String.valueOf(refusal.getMessage()), refusal.remedy())),
          Optional.empty());
    }
  }

  /**
   * @param certificate PEM
   * @param authority PEM
   * @param authorityKey PEM; for those that are to be voters
   */
  record Welcome(
      String clusterId,
      String nodeId,
      String certificate,
      String authority,
      Optional<String> authorityKey,
      List<Identity.Peer> peers) {}

  /** Why not, in the words of the cluster. */
  record Refusal(Code code, String message, String remedy) {}

  static void send(Socket socket, Object message) throws IOException {
    byte[] bytes = Json.write(message);
    DataOutputStream out = new DataOutputStream(socket.getOutputStream());
    out.writeInt(bytes.length);
    out.write(bytes);
    out.flush();
  }

  static <T> T receive(Socket socket, Class<T> type) throws IOException {
    DataInputStream in = new DataInputStream(socket.getInputStream());
    int length = in.readInt();
    if (length < 0 || length > MAX_BYTES) {
      throw new IOException("a message of " + length + " bytes");
    }
    return Json.read(in.readNBytes(length), type);
  }
}
