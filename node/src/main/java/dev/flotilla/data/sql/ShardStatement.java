package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.data.sql.Sharding.Shard;
import dev.flotilla.data.sql.Sharding.Strategy;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/** The statements that {@link Sharding} adds to SQL, parsed. */
sealed interface ShardStatement {

  /** What follows {@code SHARD BY} or {@code COLOCATE WITH}. Values are as written. */
  record Clause(
      Strategy strategy,
      String column,
      int partitions,
      int spread,
      List<Shard> shards,
      Optional<String> colocatedWith) {}

  /**
   * @param create the statement without our clause
   */
  record Create(String create, Clause clause) implements ShardStatement {}

  record Split(String table, String at) implements ShardStatement {}

  record Move(String table, int shard, List<String> nodes) implements ShardStatement {}

  int SHARDS_MAX = 1000;
  int PARTITIONS_MAX = 8192;
  int SPREAD = 8;
  int HASH_PARTITIONS = 64;

  /** Empty if it is some other statement. */
  static Optional<ShardStatement> parse(String statement) {
    Tokens create = new Tokens(statement);
    if (create.take("CREATE") && create.take("TABLE")) {
      return create.findClause().map(at -> new Create(statement.substring(0, at), clause(create)));
    }
    Tokens tokens = new Tokens(statement);
    if (tokens.take("ALTER") && tokens.take("TABLE")) {
      String table = tokens.name();
      if (tokens.take("SPLIT")) {
        tokens.expect("SHARD");
        tokens.expect("AT");
        tokens.expect("(");
        String at = tokens.value();
        tokens.expect(")");
        tokens.expectEnd();
        return Optional.of(new Split(table, at));
      }
      if (tokens.take("MOVE")) {
        tokens.expect("SHARD");
        int shard = tokens.integer(0, SHARDS_MAX);
        tokens.expect("TO");
        List<String> nodes = tokens.take("ANY") ? List.of() : nodes(tokens);
        tokens.expectEnd();
        return Optional.of(new Move(table, shard, nodes));
      }
    }
    return Optional.empty();
  }

  private static Clause clause(Tokens tokens) {
    if (tokens.take("COLOCATE")) {
      tokens.expect("WITH");
      String with = tokens.name();
      String column = tokens.take("ON") ? tokens.name() : "";
      tokens.expectEnd();
      return new Clause(Strategy.HASH, column, 0, 1, List.of(), Optional.of(with));
    }
    tokens.expect("SHARD");
    tokens.expect("BY");
    Strategy strategy =
        tokens.take("HASH")
            ? Strategy.HASH
            : tokens.take("RANGE") ? Strategy.RANGE : tokens.take("LIST") ? Strategy.LIST : null;
    if (strategy == null) {
      throw tokens.wrong("HASH, RANGE or LIST");
    }
    tokens.expect("(");
    String column = tokens.name();
    tokens.expect(")");
    int partitions = 0;
    int spread = strategy == Strategy.HASH ? 1 : SPREAD;
    List<Shard> shards = new ArrayList<>();
    if (strategy == Strategy.HASH) {
      partitions = tokens.take("INTO") ? tokens.integer(1, PARTITIONS_MAX) : HASH_PARTITIONS;
    } else if (strategy == Strategy.RANGE) {
      shards.add(new Shard(List.of(), List.of()));
      tokens.expect("SPLIT");
      tokens.expect("AT");
      tokens.expect("(");
      do {
        shards.add(new Shard(List.of(tokens.value()), List.of()));
      } while (tokens.take(","));
      tokens.expect(")");
    } else {
      tokens.expect("(");
      do {
        List<String> values = new ArrayList<>();
        if (tokens.take("(")) {
          do {
            values.add(tokens.value());
          } while (tokens.take(","));
          tokens.expect(")");
        } else {
          values.add(tokens.value());
        }
        List<String> nodes = List.of();
        if (tokens.take("ON")) {
          nodes = nodes(tokens);
        }
        shards.add(new Shard(List.copyOf(values), nodes));
      } while (tokens.take(","));
      tokens.expect(")");
      shards.add(new Shard(List.of(), List.of()));
    }
    if (strategy != Strategy.HASH && tokens.take("SPREAD")) {
      spread = tokens.integer(1, 256);
    }
    tokens.expectEnd();
    if (shards.size() > SHARDS_MAX || shards.size() * spread > PARTITIONS_MAX) {
      throw new FlotillaException(
          Code.INVALID,
          shards.size() + " shards of " + spread + " partitions each are too many",
          "At most " + SHARDS_MAX + " shards and " + PARTITIONS_MAX + " partitions.");
    }
    return new Clause(strategy, column, partitions, spread, List.copyOf(shards), Optional.empty());
  }

  private static List<String> nodes(Tokens tokens) {
    tokens.expect("NODES");
    tokens.expect("(");
    List<String> nodes = new ArrayList<>();
    do {
      nodes.add(tokens.text());
    } while (tokens.take(","));
    tokens.expect(")");
    return List.copyOf(nodes);
  }

  /** Words, numbers, quoted texts and names, one at a time. */
  final class Tokens {

    private final String sql;
    private int at;
    private int start;

    Tokens(String sql) {
      this.sql = sql;
    }

    /** Goes to our clause, outside of all parentheses and quotes. */
    Optional<Integer> findClause() {
      int depth = 0;
      while (true) {
        skipBlank();
        int before = at;
        String token = next();
        if (token.isEmpty()) {
          return Optional.empty();
        }
        depth += token.equals("(") ? 1 : token.equals(")") ? -1 : 0;
        boolean first = before > 0 && depth == 0;
        if (first && (token.equalsIgnoreCase("SHARD") || token.equalsIgnoreCase("COLOCATE"))) {
          int after = at;
          String following = token.equalsIgnoreCase("SHARD") ? "BY" : "WITH";
          if (take(following)) {
            at = before;
            return Optional.of(before);
          }
          at = after;
        }
      }
    }

    private void skipBlank() {
      while (at < sql.length() && Character.isWhitespace(sql.charAt(at))) {
        at++;
      }
    }

    private String next() {
      skipBlank();
      if (at >= sql.length()) {
        start = at;
        return "";
      }
      start = at;
      char c = sql.charAt(at++);
      if (c == '\'' || c == '"') {
        while (at < sql.length()) {
          if (sql.charAt(at++) == c) {
            if (at < sql.length() && sql.charAt(at) == c) {
              at++;
            } else {
              return sql.substring(start, at);
            }
          }
        }
        throw new FlotillaException(
            Code.INVALID,
            "cannot parse the statement at " + place() + ": the quote " + c + " is never closed",
            "Close it; write a quote inside a text twice.");
      }
      if (isWord(c) || c == '-') {
        while (at < sql.length() && (isWord(sql.charAt(at)) || sql.charAt(at) == '-')) {
          at++;
        }
      }
      return sql.substring(start, at);
    }

    private static boolean isWord(char c) {
      return Character.isLetterOrDigit(c) || c == '_' || c == '.' || c == '$' || c == ':';
    }

    boolean take(String word) {
      int before = at;
      if (next().equalsIgnoreCase(word)) {
        return true;
      }
      at = before;
      return false;
    }

    void expect(String word) {
      if (!take(word)) {
        throw wrong(word);
      }
    }

    void expectEnd() {
      take(";");
      skipBlank();
      if (at < sql.length()) {
        start = at;
        throw wrong("the end of the statement");
      }
    }

    /** An identifier, in the engine's spelling. */
    String name() {
      String token = next();
      if (token.startsWith("\"")) {
        return token.substring(1, token.length() - 1).replace("\"\"", "\"");
      }
      if (token.isEmpty() || !Character.isLetter(token.charAt(0))) {
        throw wrong("a name");
      }
      String upper = token.toUpperCase(Locale.ROOT);
      return upper.startsWith("PUBLIC.") ? upper.substring(7) : upper;
    }

    /** A name of a node: a word or a quoted text, as it is. */
    String text() {
      String token = next();
      if (token.isEmpty() || "(),;".contains(token)) {
        throw wrong("a name");
      }
      return token.startsWith("'") || token.startsWith("\"")
          ? token.substring(1, token.length() - 1)
          : token;
    }

    /** A literal, without its quotes. */
    String value() {
      String token = next();
      if (token.equalsIgnoreCase("TIMESTAMP") || token.equalsIgnoreCase("DATE")) {
        token = next();
      }
      if (token.startsWith("'")) {
        return token.substring(1, token.length() - 1).replace("''", "'");
      }
      if (!token.matches("-?[0-9]+")) {
        throw wrong("a number or a quoted text");
      }
      return token;
    }

    int integer(int least, int most) {
      String token = next();
      try {
        int number = Integer.parseInt(token);
        if (number >= least && number <= most) {
          return number;
        }
      } catch (NumberFormatException e) {
        // Said below.
      }
      throw wrong("a number from " + least + " to " + most);
    }

    /** Where the last word that was read begins. */
    private String place() {
      String before = sql.substring(0, start);
      int line = (int) before.chars().filter(c -> c == '\n').count() + 1;
      return "line " + line + ", column " + (start - before.lastIndexOf('\n'));
    }

    FlotillaException wrong(String expected) {
      at = start;
      String last = next();
      return new FlotillaException(
          Code.INVALID,
          "cannot parse the sharding of the statement at "
              + place()
              + ": expected "
              + expected
              + (last.isEmpty() ? ", but it ends there" : ", but there is " + last),
          "CREATE TABLE … takes SHARD BY HASH (column), RANGE (column) SPLIT AT (…), LIST (column)"
              + " (…) or COLOCATE WITH table; ALTER TABLE … takes SPLIT SHARD AT (…) or MOVE SHARD"
              + " n TO NODES (…).");
    }
  }
}
