package dev.flotilla.app;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.IoReason;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpCaches;
import dev.flotilla.data.cache.Cache;
import dev.flotilla.data.cache.CacheConfig;
import dev.flotilla.data.cache.Caches;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import picocli.CommandLine;
import picocli.CommandLine.Command;
import picocli.CommandLine.Model.CommandSpec;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;
import picocli.CommandLine.Spec;

/** Caches from the shell. */
@Command(
    name = "cache",
    description = "Use the caches of the cluster.",
    mixinStandardHelpOptions = true,
    synopsisSubcommandLabel = "COMMAND",
    subcommands = {
      CacheCommand.Create.class,
      CacheCommand.Get.class,
      CacheCommand.Put.class,
      CacheCommand.Remove.class,
      CacheCommand.Increment.class,
      CacheCommand.Statistics.class,
      CacheCommand.Everything.class,
      CacheCommand.Drop.class
    })
final class CacheCommand {

  /** What each of them starts with. */
  abstract static class OfOne extends ClientCommand {
    @Parameters(index = "0", paramLabel = "CACHE", description = "The cache's name.")
    String name = "";

    Caches caches() {
      return new HttpCaches(client());
    }

    Cache cache() {
      return caches().cache(name);
    }

    int say(Map<String, Object> json, String text) {
      System.out.println(asJson ? json(json) : text);
      return 0;
    }
  }

  /** What is about one entry. */
  abstract static class OfEntry extends OfOne {
    @Parameters(index = "1", paramLabel = "KEY", description = "Any text of 1 to 1,024 bytes.")
    String key = "";
  }

  @Command(name = "create", description = "Make a cache.", mixinStandardHelpOptions = true)
  static final class Create extends OfOne {
    @Option(names = "--mode", description = "partitioned (the default) or replicated.")
    private String mode = "partitioned";

    @Option(names = "--ttl-ms", description = "How long entries live; 0 for ever (the default).")
    private long ttlMs = CacheConfig.DEFAULT.ttlMs();

    @Option(names = "--max-entries", description = "Default ${DEFAULT-VALUE}.")
    private long maxEntries = CacheConfig.DEFAULT.maxEntries();

    @Option(names = "--max-bytes", description = "Default ${DEFAULT-VALUE}.")
    private long maxBytes = CacheConfig.DEFAULT.maxBytes();

    @Option(names = "--near-bytes", description = "Of each node; default ${DEFAULT-VALUE}.")
    private long nearBytes = CacheConfig.DEFAULT.nearBytes();

    @Option(names = "--store", description = "The name of a store that the nodes have registered.")
    private Optional<String> store = Optional.empty();

    @Option(names = "--write-through", description = "Write to the store too.")
    private boolean writeThrough;

    @Override
    public Integer call() {
      CacheConfig config =
          new CacheConfig(
              mode(),
              ttlMs,
              maxEntries,
              maxBytes,
              nearBytes,
              store,
              writeThrough,
              CacheConfig.DEFAULT.loadTimeoutMs());
      Cache made = caches().create(name, config);
      return say(Map.of("name", made.name(), "config", config), "made " + name);
    }

    private CacheConfig.Mode mode() {
      try {
        return CacheConfig.Mode.valueOf(mode.toUpperCase(Locale.ROOT));
      } catch (IllegalArgumentException e) {
        throw new FlotillaException(
            Code.INVALID, "there is no mode " + mode, "It is partitioned or replicated.", e);
      }
    }
  }

  @Command(
      name = "get",
      description = "Print a value; exit code 1 if there is none.",
      mixinStandardHelpOptions = true)
  static final class Get extends OfEntry {
    @Option(names = "--raw", description = "Print the bytes alone, without a line's end.")
    private boolean raw;

    @Override
    public Integer call() {
      Optional<Cache.Entry> entry = cache().entry(key);
      if (entry.isEmpty()) {
        throw new FlotillaException(
            Code.NOT_FOUND, "cache " + name + " has no entry of that key", "");
      }
      if (asJson) {
        ObjectNode node = Json.MAPPER.createObjectNode().put("value", entry.get().value());
        node.put("version", String.format("%016x", entry.get().version()));
        return print(node.put("expires_at_ms", entry.get().expiresAtMs()));
      }
      System.out.write(entry.get().value(), 0, entry.get().value().length);
      if (!raw) {
        System.out.println();
      }
      System.out.flush();
      return 0;
    }
  }

  @Command(name = "put", description = "Write a value.", mixinStandardHelpOptions = true)
  static final class Put extends OfEntry {
    @Spec private CommandSpec spec = CommandSpec.create();

    @Parameters(index = "2", arity = "0..1", paramLabel = "VALUE", description = "A text.")
    private Optional<String> value = Optional.empty();

    @Option(names = "--file", description = "Take the value from this file instead.")
    private Optional<Path> file = Optional.empty();

    @Option(names = "--ttl-ms", description = "How long it lives.")
    private Optional<Long> ttlMs = Optional.empty();

    @Option(names = "--if-absent", description = "Only if no entry is there.")
    private boolean ifAbsent;

    @Option(names = "--if-version", description = "Only if the entry has this version.")
    private Optional<String> ifVersion = Optional.empty();

    @Override
    public Integer call() {
      Optional<Duration> ttl = ttlMs.map(Duration::ofMillis);
      Optional<Long> written =
          ifAbsent || ifVersion.isPresent()
              ? cache().compareAndSet(key, version(), bytes(), ttl)
              : Optional.of(cache().put(key, bytes(), ttl));
      if (written.isEmpty()) {
        throw new FlotillaException(
            Code.CONFLICT, "the entry is not as expected; nothing was done", "");
      }
      String version = String.format("%016x", written.get());
      return say(Map.of("version", version), "version " + version);
    }

    private long version() {
      try {
        return ifVersion.map(text -> Long.parseLong(text, 16)).orElse(0L);
      } catch (NumberFormatException e) {
        throw new FlotillaException(
            Code.INVALID, "--if-version takes what get --json prints as version", "", e);
      }
    }

    private byte[] bytes() {
      if (file.isPresent() == value.isPresent()) {
        throw new CommandLine.ParameterException(
            spec.commandLine(), "Give either a VALUE or a --file.");
      }
      if (value.isPresent()) {
        return value.get().getBytes(StandardCharsets.UTF_8);
      }
      Path path = file.orElseThrow();
      try {
        return Files.readAllBytes(path);
      } catch (IOException e) {
        throw new FlotillaException(
            Code.INVALID, "cannot read " + path + ": " + IoReason.of(e), "Name another.", e);
      }
    }
  }

  @Command(name = "rm", description = "Remove an entry.", mixinStandardHelpOptions = true)
  static final class Remove extends OfEntry {
    @Override
    public Integer call() {
      boolean removed = cache().remove(key);
      return say(Map.of("removed", removed), removed ? "removed" : "there was none");
    }
  }

  @Command(name = "incr", description = "Add to a number.", mixinStandardHelpOptions = true)
  static final class Increment extends OfEntry {
    @Parameters(index = "2", defaultValue = "1", paramLabel = "BY", description = "Default 1.")
    private long by = 1;

    @Override
    public Integer call() {
      long sum = cache().increment(key, by);
      return say(Map.of("value", sum), Long.toString(sum));
    }
  }

  @Command(name = "stats", description = "Show what was counted.", mixinStandardHelpOptions = true)
  static final class Statistics extends OfOne {
    @Override
    public Integer call() {
      var counted = Client.snakeCase(cache().statistics());
      if (asJson) {
        return print(counted);
      }
      List<List<String>> rows = new ArrayList<>();
      counted.properties().forEach(e -> rows.add(List.of(e.getKey(), e.getValue().asText())));
      table(List.of("COUNTED", "VALUE"), rows);
      return 0;
    }
  }

  @Command(name = "list", description = "Show all caches.", mixinStandardHelpOptions = true)
  static final class Everything extends ClientCommand {
    @Override
    public Integer call() {
      List<Caches.Named> all = new HttpCaches(client()).list();
      if (asJson) {
        return print(Client.snakeCase(all));
      }
      List<List<String>> rows = new ArrayList<>();
      for (Caches.Named named : all) {
        CacheConfig config = named.config();
        rows.add(
            List.of(
                named.name(),
                config.mode().name().toLowerCase(Locale.ROOT),
                config.ttlMs() == 0 ? "for ever" : config.ttlMs() + " ms",
                Long.toString(config.maxEntries()),
                Long.toString(config.maxBytes()),
                config.store().orElse("")));
      }
      table(List.of("CACHE", "MODE", "TTL", "MAX ENTRIES", "MAX BYTES", "STORE"), rows);
      return 0;
    }
  }

  @Command(name = "drop", description = "Remove a cache.", mixinStandardHelpOptions = true)
  static final class Drop extends OfOne {
    @Override
    public Integer call() {
      boolean dropped = caches().drop(name);
      return say(Map.of("dropped", dropped), dropped ? "dropped " + name : "there was none");
    }
  }
}
