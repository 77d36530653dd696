package dev.flotilla.bench;

import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.Statement;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import redis.clients.jedis.Jedis;
import redis.clients.jedis.params.SetParams;

/** The same work done by the peers: what our figures stand beside. */
final class PeerFigures {

  private static final byte[] VALUE = new byte[100];
  private static final int KEYS = 10_000;

  private PeerFigures() {}

  static byte[] key(long number) {
    return ("key-" + number % KEYS).getBytes(StandardCharsets.UTF_8);
  }

  static Load.Figures redisGet(Peers peers, int clients, double seconds) throws Exception {
    try (Jedis jedis = peers.redis(false).orElseThrow()) {
      for (int i = 0; i < KEYS; i++) {
        jedis.set(key(i), VALUE);
      }
    }
    return Load.run(
        clients,
        seconds,
        1,
        number -> {
          Jedis jedis = peers.redis(false).orElseThrow();
          long[] next = {number * 7919L};
          return () -> jedis.get(key(next[0]++));
        });
  }

  static Load.Figures redisPut(Peers peers, boolean durable, int clients, double seconds)
      throws Exception {
    return Load.run(
        clients,
        seconds,
        1,
        number -> {
          Jedis jedis = peers.redis(durable).orElseThrow();
          long[] next = {number * 7919L};
          return () -> jedis.set(key(next[0]++), VALUE);
        });
  }

  /** A lock as people make it with Redis: SET NX PX, and a script that deletes only one's own. */
  static Load.Figures redisLock(Peers peers, int clients, double seconds) throws Exception {
    String release =
        "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1])"
            + " else return 0 end";
    return Load.run(
        clients,
        seconds,
        1,
        number -> {
          Jedis jedis = peers.redis(true).orElseThrow();
          String lock = "lock-" + number;
          return () -> {
            jedis.set(lock, "me", SetParams.setParams().nx().px(10_000));
            jedis.eval(release, List.of(lock), List.of("me"));
          };
        });
  }

  /** Sends messages to a queue table, one transaction each batch. */
  static Load.Figures postgresSend(Peers peers, int clients, int batch, double seconds)
      throws Exception {
    prepareQueue(peers);
    return Load.run(
        clients,
        seconds,
        batch,
        number -> {
          Connection connection = peers.postgres().orElseThrow();
          connection.setAutoCommit(false);
          PreparedStatement insert =
              connection.prepareStatement("INSERT INTO queue (key, body) VALUES (?, ?)");
          return () -> {
            for (int i = 0; i < batch; i++) {
              insert.setString(1, "key-" + i);
              insert.setBytes(2, VALUE);
              insert.addBatch();
            }
            insert.executeBatch();
            connection.commit();
          };
        });
  }

  private static void prepareQueue(Peers peers) throws Exception {
    try (Connection connection = peers.postgres().orElseThrow();
        Statement statement = connection.createStatement()) {
      statement.execute("DROP TABLE IF EXISTS queue");
      statement.execute(
          "CREATE TABLE queue (id BIGSERIAL PRIMARY KEY, key TEXT, body BYTEA, visible_at"
              + " TIMESTAMPTZ NOT NULL DEFAULT now())");
      statement.execute("CREATE INDEX ON queue (visible_at, id)");
    }
  }

  /**
   * Receives with FOR UPDATE SKIP LOCKED and makes the messages invisible for a while, then deletes
   * them: two commits each batch, as a queue with a visibility time-out needs.
   */
  static Load.Figures postgresReceive(Peers peers, int clients, int batch, double seconds)
      throws Exception {
    prepareQueue(peers);
    try (Connection connection = peers.postgres().orElseThrow();
        Statement statement = connection.createStatement()) {
      statement.execute(
          "INSERT INTO queue (key, body) SELECT 'key-' || n, decode(repeat('00', 100), 'hex')"
              + " FROM generate_series(1, 400000) n");
    }
    AtomicLong empty = new AtomicLong();
    Load.Figures figures =
        Load.run(
            clients,
            seconds,
            batch,
            number -> {
              Connection connection = peers.postgres().orElseThrow();
              PreparedStatement receive =
                  connection.prepareStatement(
                      "UPDATE queue SET visible_at = now() + interval '30 seconds' WHERE id IN"
                          + " (SELECT id FROM queue WHERE visible_at <= now() ORDER BY visible_at,"
                          + " id LIMIT ? FOR UPDATE SKIP LOCKED) RETURNING id, body");
              PreparedStatement delete =
                  connection.prepareStatement("DELETE FROM queue WHERE id = ANY (?)");
              return () -> {
                receive.setInt(1, batch);
                Long[] ids = new Long[batch];
                int count = 0;
                try (ResultSet rows = receive.executeQuery()) {
                  while (rows.next()) {
                    ids[count++] = rows.getLong(1);
                  }
                }
                if (count < batch) {
                  empty.incrementAndGet();
                }
                delete.setArray(1, connection.createArrayOf("bigint", ids));
                delete.executeUpdate();
              };
            });
    if (empty.get() > 0) {
      throw new IllegalStateException("the queue ran empty: give it more messages");
    }
    return figures;
  }

  /** One row by its key. */
  static Load.Figures postgresSelect(Peers peers, int clients, double seconds) throws Exception {
    prepareTable(peers);
    return Load.run(
        clients,
        seconds,
        1,
        number -> {
          PreparedStatement select =
              peers.postgres().orElseThrow().prepareStatement("SELECT v FROM bench WHERE k = ?");
          int[] next = {number * 7919};
          return () -> {
            select.setInt(1, next[0]++ % KEYS);
            try (ResultSet rows = select.executeQuery()) {
              if (!rows.next()) {
                throw new IllegalStateException("no row");
              }
            }
          };
        });
  }

  /** One row changed, one commit. */
  static Load.Figures postgresUpdate(Peers peers, int clients, double seconds) throws Exception {
    prepareTable(peers);
    return Load.run(
        clients,
        seconds,
        1,
        number -> {
          PreparedStatement update =
              peers
                  .postgres()
                  .orElseThrow()
                  .prepareStatement("UPDATE bench SET v = v + 1 WHERE k = ?");
          int[] next = {number * 7919};
          return () -> {
            update.setInt(1, next[0]++ % KEYS);
            update.executeUpdate();
          };
        });
  }

  private static void prepareTable(Peers peers) throws Exception {
    try (Connection connection = peers.postgres().orElseThrow();
        Statement statement = connection.createStatement()) {
      statement.execute("DROP TABLE IF EXISTS bench");
      statement.execute("CREATE TABLE bench (k INT PRIMARY KEY, v BIGINT)");
      statement.execute("INSERT INTO bench SELECT n, 0 FROM generate_series(0, 9999) n");
    }
  }

  /** For trying the peers alone. */
  public static void main(String[] arguments) throws Exception {
    try (Peers peers = new Peers()) {
      System.out.println("redis get 1 " + redisGet(peers, 1, 2));
      System.out.println("redis put durable 1 " + redisPut(peers, true, 1, 2));
      System.out.println("redis lock 1 " + redisLock(peers, 1, 2));
      for (int clients : new int[] {1, 8}) {
        System.out.println("pg send " + clients + " " + postgresSend(peers, clients, 1, 2));
        System.out.println("pg send 10 " + clients + " " + postgresSend(peers, clients, 10, 2));
        System.out.println("pg receive " + clients + " " + postgresReceive(peers, clients, 1, 2));
        System.out.println(
            "pg receive 10 " + clients + " " + postgresReceive(peers, clients, 10, 2));
        System.out.println("pg select " + clients + " " + postgresSelect(peers, clients, 2));
        System.out.println("pg update " + clients + " " + postgresUpdate(peers, clients, 2));
      }
    }
  }
}
