package dev.flotilla.train;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.io.Closeable;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLServerSocket;
import javax.net.ssl.SSLSocket;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Carries the gradient traffic of training workers between nodes over mutual TLS, because this
 * build of Gloo has no TLS of its own.
 *
 * <p>How it fits under Gloo. Each worker binds Gloo to a loopback address of its rank, {@code
 * 127.77.0.(10 + rank)}, and Gloo publishes an address blob that holds this address and port. The
 * node gives its worker, in place of every other rank's blob, a copy in which the port is that of a
 * local forwarder, which listens on that rank's loopback address on this machine. When Gloo
 * connects to it, the forwarder opens a TLS connection to the tunnel of the node that runs that
 * rank, names job, epoch and rank in a header, and from there on bytes are copied both ways. Of two
 * ranks Gloo lets the one with the higher IP address connect; since a rank has the same IP address
 * on every machine, both ends agree on who that is.
 *
 * <p>A stream is accepted only for the very job and epoch whose worker runs here: one of an earlier
 * world is refused. Both ends must show a certificate of the cluster.
 */
public final class GradientTunnel implements AutoCloseable {

  private static final Logger LOG = LoggerFactory.getLogger(GradientTunnel.class);

  private static final int MAGIC = 0x464c5431; // FLT1
  private static final byte ADDRESS = 1;
  private static final byte DATA = 2;
  private static final int JOB_NAME_MAX = 200;
  private static final int BLOB_BYTES_MAX = 1 << 16;
  private static final int HANDSHAKE_TIMEOUT_MS = 10_000;
  private static final int BUFFER_BYTES = 1 << 16;

  /** A world of workers: one attempt at a job. */
  public record World(String job, long epoch) {}

  private final SSLContext tls;
  private final SSLServerSocket server;
  private final Map<World, Session> sessions = new ConcurrentHashMap<>();
  private final Set<Socket> sockets = ConcurrentHashMap.newKeySet();
  private volatile boolean closed;

  /**
   * Listens at once.
   *
   * @param tls this node's certificate and the cluster's authority
   * @throws FlotillaException {@code UNAVAILABLE} if the port is in use
   */
  public GradientTunnel(SSLContext tls, InetSocketAddress address) {
    this.tls = tls;
    try {
      server = (SSLServerSocket) tls.getServerSocketFactory().createServerSocket();
      server.setNeedClientAuth(true);
      server.setReuseAddress(true);
      server.bind(address);
    } catch (IOException e) {
      throw new FlotillaException(
          Code.UNAVAILABLE,
          "cannot listen for gradients on " + address + ": " + e.getMessage(),
          "Choose another --port or stop the program that uses this one.",
          e);
    }
    Thread.ofVirtual().name("gradient-tunnel").start(this::accept);
  }

  /** The port it listens on. */
  public int port() {
    return server.getLocalPort();
  }

  /** Where the Gloo of a rank listens, on every machine. */
  static String loopbackAddress(int rank) {
    return "127.77." + ((rank + 10) >> 8) + "." + ((rank + 10) & 0xff);
  }

  /**
   * Opens this node's end for one worker.
   *
   * @param rank of the worker that runs here
   * @param tunnels where the tunnel of each rank's node listens, by rank
   */
  Session open(World world, int rank, List<InetSocketAddress> tunnels) {
    Session session = new Session(world, rank, tunnels);
    if (sessions.putIfAbsent(world, session) != null) {
      throw new IllegalStateException("a worker of " + world + " runs here already");
    }
    return session;
  }

  private void accept() {
    while (!closed) {
      try {
        Socket socket = server.accept();
        Thread.ofVirtual().name("gradient-stream").start(() -> serve(socket));
      } catch (IOException e) {
        if (!closed) {
          LOG.warn("gradient tunnel cannot accept: {}", e.toString());
          pause();
        }
      }
    }
  }

  /** Nothing of the stream is read before the handshake has proved the peer's certificate. */
  private void serve(Socket socket) {
    sockets.add(socket);
    try {
      socket.setSoTimeout(HANDSHAKE_TIMEOUT_MS);
      ((SSLSocket) socket).startHandshake();
      DataInputStream in = new DataInputStream(socket.getInputStream());
      DataOutputStream out = new DataOutputStream(socket.getOutputStream());
      if (in.readInt() != MAGIC) {
        throw new IOException("not a gradient stream");
      }
      byte kind = in.readByte();
      String job = in.readUTF();
      World world =
          new World(job.substring(0, Math.min(job.length(), JOB_NAME_MAX)), in.readLong());
      int rank = in.readInt();
      Session session = sessions.get(world);
      if (session == null || session.rank != rank) {
        out.writeBoolean(false);
        out.flush();
        close(socket);
        return;
      }
      socket.setSoTimeout(0);
      if (kind == ADDRESS) {
        byte[] blob = session.own.get(HANDSHAKE_TIMEOUT_MS, TimeUnit.MILLISECONDS);
        out.writeBoolean(true);
        out.writeInt(blob.length);
        out.write(blob);
        out.flush();
        close(socket);
      } else {
        byte[] blob = session.own.get(HANDSHAKE_TIMEOUT_MS, TimeUnit.MILLISECONDS);
        Socket local =
            new Socket(InetAddress.getByName(loopbackAddress(rank)), GlooAddress.port(blob));
        out.writeBoolean(true);
        out.flush();
        session.splice(socket, local);
      }
    } catch (IOException | TimeoutException | java.util.concurrent.ExecutionException e) {
      LOG.warn(
          "gradient stream from {} refused: {}", socket.getRemoteSocketAddress(), e.toString());
      close(socket);
    } catch (InterruptedException e) {
      close(socket);
      Thread.currentThread().interrupt();
    } finally {
      sockets.remove(socket);
    }
  }

  private SSLSocket dial(InetSocketAddress tunnel, byte kind, World world, int rank)
      throws IOException {
    Socket plain = new Socket();
    try {
      plain.setTcpNoDelay(true);
      plain.connect(tunnel, HANDSHAKE_TIMEOUT_MS);
      plain.setSoTimeout(HANDSHAKE_TIMEOUT_MS);
      SSLSocket socket =
          (SSLSocket)
              tls.getSocketFactory()
                  .createSocket(plain, tunnel.getHostString(), tunnel.getPort(), true);
      socket.startHandshake();
      DataOutputStream out = new DataOutputStream(socket.getOutputStream());
      out.writeInt(MAGIC);
      out.writeByte(kind);
      out.writeUTF(world.job());
      out.writeLong(world.epoch());
      out.writeInt(rank);
      out.flush();
      socket.setSoTimeout(2 * HANDSHAKE_TIMEOUT_MS);
      if (socket.getInputStream().read() != 1) {
        throw new NotThereException(rank);
      }
      socket.setSoTimeout(0);
      return socket;
    } catch (IOException e) {
      close(plain);
      throw e;
    }
  }

  /** The other node does not run that rank of that world, or not yet. */
  private static final class NotThereException extends IOException {
    private static final long serialVersionUID = 1L;

    NotThereException(int rank) {
      super("rank " + rank + " is not there");
    }
  }

  private static void close(Closeable closeable) {
    try {
      closeable.close();
    } catch (IOException e) {
      LOG.debug("closing: {}", e.toString());
    }
  }

  private static void pause() {
    try {
      Thread.sleep(100);
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
  }

  /** Ends every session and leaves the port. */
  @Override
  public void close() {
    closed = true;
    close(server);
    List.copyOf(sessions.values()).forEach(Session::close);
    sockets.forEach(GradientTunnel::close);
  }

  /** This node's end for one worker: what its Gloo is told, and the streams it opens. */
  final class Session implements AutoCloseable {
    private final World world;
    private final int rank;
    private final List<InetSocketAddress> tunnels;
    private final CompletableFuture<byte[]> own = new CompletableFuture<>();
    private final List<ServerSocket> forwarders = new ArrayList<>();
    private final Set<Socket> open = ConcurrentHashMap.newKeySet();
    private volatile boolean ended;

    private Session(World world, int rank, List<InetSocketAddress> tunnels) {
      this.world = world;
      this.rank = rank;
      this.tunnels = List.copyOf(tunnels);
    }

    /**
     * Publishes this worker's address blob and returns what it is to see in place of every rank's:
     * its own unchanged, the others' with the port of a forwarder here. Waits for the other
     * workers.
     *
     * @throws FlotillaException {@code UNAVAILABLE} if one does not come up in time
     */
    List<byte[]> exchange(byte[] blob, long timeoutNs) {
      own.complete(blob);
      long deadline = System.nanoTime() + timeoutNs;
      List<byte[]> blobs = new ArrayList<>();
      for (int peer = 0; peer < tunnels.size(); peer++) {
        blobs.add(
            peer == rank ? blob : GlooAddress.withPort(addressOf(peer, deadline), forwarder(peer)));
      }
      return blobs;
    }

    private byte[] addressOf(int peer, long deadline) {
      while (true) {
        try (SSLSocket socket = dial(tunnels.get(peer), ADDRESS, world, peer)) {
          socket.setSoTimeout(HANDSHAKE_TIMEOUT_MS);
          DataInputStream in = new DataInputStream(socket.getInputStream());
          int length = in.readInt();
          if (length < 0 || length > BLOB_BYTES_MAX) {
            throw new IOException("an address of " + length + " bytes");
          }
          return in.readNBytes(length);
        } catch (IOException e) {
          if (ended || System.nanoTime() > deadline) {
            throw new FlotillaException(
                Code.UNAVAILABLE,
                "rank " + peer + " at " + tunnels.get(peer) + " did not come up: " + e.getMessage(),
                "See its node's log.",
                e);
          }
          pause();
        }
      }
    }

    private int forwarder(int peer) {
      try {
        ServerSocket forwarder =
            new ServerSocket(0, 16, InetAddress.getByName(loopbackAddress(peer)));
        forwarders.add(forwarder);
        Thread.ofVirtual().name("gradient-forwarder").start(() -> forward(forwarder, peer));
        return forwarder.getLocalPort();
      } catch (IOException e) {
        throw new FlotillaException(
            Code.UNAVAILABLE,
            "cannot listen on " + loopbackAddress(peer) + ": " + e.getMessage(),
            "The machine's loopback interface must answer on all of 127.0.0.0/8.",
            e);
      }
    }

    private void forward(ServerSocket forwarder, int peer) {
      while (!ended) {
        try {
          Socket local = forwarder.accept();
          Thread.ofVirtual().name("gradient-stream").start(() -> connect(local, peer));
        } catch (IOException e) {
          if (!ended) {
            LOG.warn("{}: forwarder to rank {} ended: {}", world, peer, e.toString());
          }
          return;
        }
      }
    }

    private void connect(Socket local, int peer) {
      try {
        splice(dial(tunnels.get(peer), DATA, world, peer), local);
      } catch (IOException e) {
        LOG.warn("{}: no stream to rank {}: {}", world, peer, e.toString());
        GradientTunnel.close(local);
      }
    }

    /** Copies both ways until either side ends; then ends both. */
    private void splice(Socket remote, Socket local) throws IOException {
      open.add(remote);
      open.add(local);
      if (ended) {
        close();
      }
      remote.setTcpNoDelay(true);
      local.setTcpNoDelay(true);
      Thread back = Thread.ofVirtual().name("gradient-copy").start(() -> copy(local, remote));
      copy(remote, local);
      try {
        back.join();
      } catch (InterruptedException e) {
        Thread.currentThread().interrupt();
      }
      open.remove(remote);
      open.remove(local);
    }

    private void copy(Socket from, Socket to) {
      byte[] buffer = new byte[BUFFER_BYTES];
      try {
        InputStream in = from.getInputStream();
        OutputStream out = to.getOutputStream();
        for (int read = in.read(buffer); read >= 0; read = in.read(buffer)) {
          out.write(buffer, 0, read);
          out.flush();
        }
      } catch (IOException e) {
        LOG.debug("{}: stream ended: {}", world, e.toString());
      }
      GradientTunnel.close(from);
      GradientTunnel.close(to);
    }

    /** Ends its streams, so that the worker and its peers see broken connections at once. */
    @Override
    public void close() {
      ended = true;
      sessions.remove(world, this);
      own.cancel(false);
      forwarders.forEach(GradientTunnel::close);
      open.forEach(GradientTunnel::close);
    }
  }

  /**
   * The address blob that Gloo puts into the store: the host name and the socket address, each
   * behind its length as 64 bits, little-endian, then the identifiers of its pairs. The socket
   * address is Linux's {@code sockaddr_in}: family, then port and address in network order.
   */
  static final class GlooAddress {
    private static final int AF_INET = 2;

    private GlooAddress() {}

    static int port(byte[] blob) {
      return ByteBuffer.wrap(blob).getShort(socketAddress(blob) + 2) & 0xffff;
    }

    static byte[] withPort(byte[] blob, int port) {
      byte[] copy = blob.clone();
      ByteBuffer.wrap(copy).putShort(socketAddress(blob) + 2, (short) port);
      return copy;
    }

    private static int socketAddress(byte[] blob) {
      ByteBuffer buffer = ByteBuffer.wrap(blob).order(ByteOrder.LITTLE_ENDIAN);
      long nameLength = blob.length < 8 ? -1 : buffer.getLong(0);
      if (nameLength >= 0 && nameLength <= blob.length - 24) {
        int at = Math.toIntExact(8 + nameLength + 8);
        if (buffer.getShort(at) == AF_INET) {
          return at;
        }
      }
      throw new IllegalStateException("not an address of Gloo, or of another version of it");
    }
  }
}
