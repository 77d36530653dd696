package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.IoReason;
import dev.flotilla.Json;
import dev.flotilla.cluster.NodeFiles;
import dev.flotilla.cluster.Registry;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.security.SecureRandom;
import java.util.Base64;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.function.LongSupplier;
import java.util.function.Supplier;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The keys that may use this cluster. The registry holds only their SHA-256 (kind {@code "key"}),
 * so that every node can check a key and none can give one away.
 *
 * <p>An address that sends many wrong keys is turned away for a while, right keys included.
 */
public final class ApiKeys {

  /** What the registry holds of a key: its digest in hexadecimal. */
  record Key(String name, String sha256, long createdAtMs) {}

  private static final Logger log = LoggerFactory.getLogger(ApiKeys.class);
  private static final String KIND = "key";

  /** The key that the first node makes for whoever runs the cluster. */
  static final String ADMIN = "admin";

  private static final int WRONG_KEYS_MAX = 20;
  private static final long BAN_NS = 10_000_000_000L;
  private static final int ADDRESSES_MAX = 10_000;

  private record Wrong(int count, long sinceNs) {}

  private final Supplier<Registry> registry;
  private final LongSupplier nanoTime;
  private final Map<String, Wrong> wrongByAddress =
      new LinkedHashMap<>() {
        private static final long serialVersionUID = 1L;

        @Override
        protected boolean removeEldestEntry(Map.Entry<String, Wrong> eldest) {
          return size() > ADDRESSES_MAX;
        }
      };

  ApiKeys(Supplier<Registry> registry, LongSupplier nanoTime) {
    this.registry = registry;
    this.nanoTime = nanoTime;
  }

  /**
   * Makes the cluster's admin key on the node that starts the cluster, or finds the one made
   * before: the key in a file that only its owner may read, its digest in the registry.
   *
   * @param file such as {@code DIR/admin.key}
   * @return the key
   * @throws FlotillaException {@code STORAGE} if the file cannot be written
   */
  public static String ensureAdminKey(
      Path file, Registry registry, SecureRandom random, long nowMs) {
    String key;
    try {
      key = Files.exists(file) ? Files.readString(file).strip() : create(file, random);
    } catch (IOException e) {
      throw new FlotillaException(
          FlotillaException.Code.STORAGE,
          "the admin key cannot be kept in " + file + ": " + IoReason.of(e),
          "Make room or rights there, or choose another folder with --data.",
          e);
    }
    Registry.Key entry = new Registry.Key(KIND, ADMIN);
    Optional<Registry.Entry> present = registry.get(entry);
    String digest = HexFormat.of().formatHex(sha256(key));
    boolean same =
        present.isPresent() && Json.read(present.get().value(), Key.class).sha256().equals(digest);
    if (!same) {
      Optional<Long> written =
          registry.commit(
              List.of(new Registry.Condition(entry, present.map(Registry.Entry::epoch).orElse(0L))),
              List.of(
                  new Registry.Write(
                      entry, Optional.of(Json.write(new Key(ADMIN, digest, nowMs))))));
      if (written.isEmpty()) {
        throw new FlotillaException(
            FlotillaException.Code.CONFLICT,
            "the admin key was changed on another node at the same moment",
            "Start this node again.");
      }
    }
    return key;
  }

  private static String create(Path file, SecureRandom random) throws IOException {
    byte[] secret = new byte[32];
    random.nextBytes(secret);
    String key = "fk-" + Base64.getUrlEncoder().withoutPadding().encodeToString(secret);
    NodeFiles.writeDurably(file, (key + "\n").getBytes(StandardCharsets.UTF_8), true);
    return key;
  }

  /**
   * Lets a request pass, or not.
   *
   * @param authorization the header's value
   * @param address where the request comes from
   * @return the name of the key
   * @throws ApiError 401 for a wrong or missing key, 429 after many wrong ones
   * @throws FlotillaException {@code NO_MAJORITY} if this node's copy does not know the key and
   *     cannot be brought up to date
   */
  String check(Optional<String> authorization, String address) {
    if (banned(address)) {
      throw ApiError.of(
          429,
          "too_many_wrong_keys",
          "Too many wrong keys came from this address. Wait, then send the right one.");
    }
    if (authorization.isEmpty()) {
      throw ApiError.of(
          401,
          "missing_api_key",
          "No key was sent. Send one as `Authorization: Bearer KEY`; the admin key is in"
              + " admin.key in the data folder of the node that started the cluster.");
    }
    Optional<String> name = known(authorization.get());
    if (name.isEmpty()) {
      // A node that starts, or a key just made elsewhere: this copy may be behind.
      registry.get().sync();
      name = known(authorization.get());
    }
    if (name.isEmpty()) {
      count(address);
      throw ApiError.of(
          401,
          "invalid_api_key",
          "The key sent is not one of this cluster's. The admin key is in admin.key in the data"
              + " folder of the node that started the cluster.");
    }
    return name.get();
  }

  private Optional<String> known(String authorization) {
    boolean bearer = authorization.regionMatches(true, 0, "Bearer ", 0, 7);
    byte[] digest = sha256(bearer ? authorization.substring(7).strip() : "");
    Optional<String> name = Optional.empty();
    // Every key is compared in full, so that time tells nothing.
    for (Registry.Entry entry : registry.get().list(KIND)) {
      Key key = Json.read(entry.value(), Key.class);
      if (MessageDigest.isEqual(digest, HexFormat.of().parseHex(key.sha256()))) {
        name = Optional.of(key.name());
      }
    }
    return bearer ? name : Optional.empty();
  }

  private synchronized boolean banned(String address) {
    Wrong wrong = wrongByAddress.get(address);
    if (wrong == null) {
      return false;
    }
    if (nanoTime.getAsLong() - wrong.sinceNs() > BAN_NS) {
      wrongByAddress.remove(address);
      return false;
    }
    return wrong.count() >= WRONG_KEYS_MAX;
  }

  private synchronized void count(String address) {
    Wrong before = wrongByAddress.getOrDefault(address, new Wrong(0, 0));
    Wrong now = new Wrong(before.count() + 1, nanoTime.getAsLong());
    wrongByAddress.put(address, now);
    if (now.count() == WRONG_KEYS_MAX) {
      log.warn(
          "{} wrong keys came from {}; turned away for {} s",
          WRONG_KEYS_MAX,
          address,
          BAN_NS / 1_000_000_000L);
    }
  }

  private static byte[] sha256(String text) {
    try {
      return MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8));
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException(e);
    }
  }
}
