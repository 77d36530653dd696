package dev.flotilla.data.sql;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Function;
import java.util.regex.MatchResult;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.apache.calcite.runtime.CalciteException;
import org.apache.calcite.sql.parser.SqlParseException;
import org.apache.calcite.sql.parser.SqlParserPos;
import org.apache.ignite.internal.processors.cache.query.IgniteQueryErrorCode;
import org.apache.ignite.internal.processors.query.IgniteSQLException;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * What the engine says of a wrong statement, in words for who wrote it: one line that says what is
 * wrong, where, and what to do. The engine's own words name its classes, the tokens of its parser
 * and the hashes of its objects; whatever of that kind is not known here goes to the log alone.
 */
final class SqlErrors {

  private static final Logger log = LoggerFactory.getLogger(SqlErrors.class);

  private static final String NOTHING = "Nothing was done.";

  private static final List<String> OFFERED =
      List.of(
          "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "CREATE", "ALTER", "DROP", "WITH",
          "VALUES", "EXPLAIN");

  /** What to do instead of a statement that other databases have. */
  private static final Map<String, String> INSTEAD =
      Map.ofEntries(
          Map.entry("BEGIN", "Transactions begin and end by their own calls."),
          Map.entry("START", "Transactions begin and end by their own calls."),
          Map.entry("COMMIT", "Transactions begin and end by their own calls."),
          Map.entry("ROLLBACK", "Transactions begin and end by their own calls."),
          Map.entry("SAVEPOINT", "Transactions begin and end by their own calls."),
          Map.entry("TRUNCATE", "Use DELETE FROM and the table's name."),
          Map.entry("REPLACE", "Use MERGE INTO, or UPDATE and INSERT."),
          Map.entry("UPSERT", "Use MERGE INTO, or UPDATE and INSERT."),
          Map.entry("SHOW", "The list of tables, \\d in the shell, shows tables and columns."),
          Map.entry("DESCRIBE", "The list of tables, \\d in the shell, shows tables and columns."),
          Map.entry("DESC", "The list of tables, \\d in the shell, shows tables and columns."),
          Map.entry("GRANT", "Access is governed by API keys."),
          Map.entry("REVOKE", "Access is governed by API keys."),
          Map.entry("CALL", "There are no stored procedures."),
          Map.entry("KILL", "A statement is cancelled when its connection ends, or by time-out."),
          Map.entry("SET", "Settings belong to each request, such as its time-out."),
          Map.entry("RESET", "Settings belong to each request, such as its time-out."),
          Map.entry("USE", "There is one schema, PUBLIC."),
          Map.entry("COPY", "Use INSERT with many rows."),
          Map.entry("ANALYZE", "Statistics keep themselves up to date."),
          Map.entry("VACUUM", "Space is freed by itself."),
          Map.entry("LOCK", "Use the locks of their own calls."));

  private static final Pattern PLACE =
      Pattern.compile(
          "(?s)^(?:From|At) line (\\d+), column (\\d+)(?: to line \\d+, column \\d+)?: (.*)$");

  /** Words of the engine's inside that no user should have to read. */
  private static final Pattern INSIDE =
      Pattern.compile(
          "idHash|Exception|Error:|\\b[a-z]+\\.[a-z]+\\.[\\w.$]+|module java|@[0-9a-f]{6}"
              + "|RECORDTYPE|\\bclass \\w|#\\d|\\bnull\\b$");

  /** What the engine says, and how we say it. */
  private record Saying(Pattern pattern, Code code, Function<MatchResult, String> words) {
    static Saying of(String regex, Function<MatchResult, String> words) {
      return of(Code.INVALID, regex, words);
    }

    static Saying of(Code code, String regex, Function<MatchResult, String> words) {
      return new Saying(Pattern.compile(regex, Pattern.DOTALL), code, words);
    }
  }

  private static final List<Saying> SAYINGS =
      List.of(
          Saying.of(
              "Number of INSERT target columns \\((\\d+)\\) does not equal number of source items"
                  + " \\((\\d+)\\).*",
              m -> "the INSERT is into " + m.group(1) + " columns, but gives " + m.group(2)),
          Saying.of("Unknown target column '(.*)'", m -> "there is no column " + m.group(1)),
          Saying.of(
              "Duplicate target column '(.*)'.*", m -> "column " + m.group(1) + " is named twice"),
          Saying.of(
              "Column '(.*)' not found in any table(; did you mean '(.*)'\\?)?",
              m -> "there is no column " + m.group(1) + meant(m.group(3))),
          Saying.of(
              "Column '(.*)' not found in table '(.*?)'(; did you mean '(.*)'\\?)?",
              m -> m.group(2) + " has no column " + m.group(1) + meant(m.group(4))),
          Saying.of(
              "Column '(.*)' is ambiguous",
              m -> "column " + m.group(1) + " is in several tables; say of which"),
          Saying.of(
              "Table '(.*)' not found", m -> "the statement names no table or alias " + m.group(1)),
          Saying.of(
              Code.NOT_FOUND, "Object '(.*?)' not found.*", m -> "there is no table " + m.group(1)),
          Saying.of("Unknown identifier '(.*)'", m -> "there is no type " + m.group(1)),
          Saying.of(
              "No match found for function signature (\\w+)\\((.*)\\)",
              m ->
                  "there is no function "
                      + m.group(1)
                      + (m.group(2).isEmpty() ? " without arguments" : " of " + types(m.group(2)))),
          Saying.of(
              "Invalid number of arguments to function '(\\w+)'\\. Was expecting (\\d+) arguments",
              m -> "function " + m.group(1) + " takes " + m.group(2) + " arguments"),
          Saying.of(
              "Cannot apply '\\$SCALAR_QUERY'.*",
              m -> "a sub-query that stands for one value has several columns"),
          Saying.of(
              "Cannot apply '?(.+?)'? to arguments of type '.*?\\((.*)\\)'\\..*|Cannot apply (.+?)"
                  + " to the two different operand types.*",
              m ->
                  m.group(1) == null
                      ? m.group(3) + " does not take values of these two types"
                      : m.group(1).strip() + " does not take " + types(m.group(2))),
          Saying.of(
              "Values passed to (.*) operator must have compatible types",
              m -> "the rows of " + m.group(1) + " differ in their number of values or types"),
          Saying.of(
              "Column count mismatch in (.*)",
              m -> "the queries that " + m.group(1) + " joins differ in their number of columns"),
          Saying.of("WHERE clause must be a condition", m -> "WHERE needs a condition"),
          Saying.of(
              "Expression '(.*)' is not being grouped",
              m -> m.group(1) + " is neither grouped nor inside an aggregate such as MAX"),
          Saying.of(
              "Cannot update field \"?(.*?)\"?\\. You cannot update.*",
              m ->
                  "column "
                      + m.group(1)
                      + " belongs to the primary key, which cannot be changed; DELETE the row and"
                      + " INSERT it anew"),
          Saying.of(
              "Illegal (\\w+) literal '(.*)': not in format '(.*)'",
              m -> "'" + m.group(2) + "' is no " + m.group(1) + "; write it as " + m.group(3)),
          Saying.of(
              "Value of \\w+ field is out of range in '(.*)'",
              m -> "there is no date or time '" + m.group(1) + "'"),
          Saying.of(
              "Invalid (DATE|TIME|TIMESTAMP) value, '(.*)'",
              m -> "'" + m.group(2) + "' is no date or time, such as '2026-01-31 13:05:00'"),
          Saying.of("Invalid UUID string: (.*)", m -> "'" + m.group(1) + "' is no UUID"),
          Saying.of(
              "UUID string too large", m -> "a text that is no UUID stands where one is wanted"),
          Saying.of(".*/ by zero|Division by zero.*", m -> "division by zero"),
          Saying.of(
              "(\\w+) overflow\\.?|Value '?.*'? out of range for (\\w+)",
              m ->
                  "a number is too large for the type "
                      + (m.group(1) == null ? m.group(2) : m.group(1))),
          Saying.of(
              "Numeric field overflow\\.?",
              m -> "a number has more digits than its column or type takes"),
          Saying.of(
              "Character .* is neither a decimal digit.*|For input string: .*|.*NumberFormat.*",
              m -> "a text that is no number stands where a number is wanted"),
          Saying.of(
              ".*class (\\S+) cannot be cast to class (\\S+) .*",
              m ->
                  "a value of type "
                      + SqlValues.type(m.group(1))
                      + " stands where "
                      + SqlValues.type(m.group(2))
                      + " is wanted"),
          Saying.of(
              "Type for a column '(.*)' is not compatible with (?:index|table) definition\\."
                  + " Expected '(.*)', actual type '(.*)'",
              m ->
                  "column "
                      + m.group(1)
                      + " takes "
                      + shortType(m.group(2))
                      + ", but the value is "
                      + shortType(m.group(3))),
          Saying.of(
              "Value for a column '(.*)' is too long\\. Maximum length: (\\d+), actual length:"
                  + " (\\d+)",
              m ->
                  "the value for column "
                      + m.group(1)
                      + " has a length of "
                      + m.group(3)
                      + ", more than the "
                      + m.group(2)
                      + " that the column takes"),
          Saying.of(
              "Value for a column '(.*)' is out of range\\. Maximum (\\w+): (\\d+), actual \\w+:"
                  + " (\\d+)",
              m ->
                  "the value for column "
                      + m.group(1)
                      + " has a "
                      + m.group(2)
                      + " of "
                      + m.group(4)
                      + ", more than the "
                      + m.group(3)
                      + " that the column takes"),
          Saying.of(
              "Subquery returned more than 1 value.*",
              m -> "a sub-query that stands for one value returned several rows"),
          Saying.of(
              Code.CONFLICT,
              "(Table|Index|Column|View) already exists: (.*)",
              m -> "there is " + a(m.group(1)) + " " + m.group(2) + " already"),
          Saying.of(
              Code.NOT_FOUND,
              "(Table|Index|Column|View|Schema) doesn't exist: (.*)",
              m -> "there is no " + lower(m.group(1)) + " " + m.group(2)),
          Saying.of(
              "Cannot drop column \"(.*)\" because.*key.*",
              m -> "column " + m.group(1) + " belongs to the primary key, and cannot be dropped"),
          Saying.of(
              "Cannot drop column \"(.*)\" because an index exists \\(\"(.*)\"\\).*",
              m -> "index " + m.group(2) + " is on column " + m.group(1) + "; drop that first"),
          Saying.of(
              "Unexpected amount of primary key constraints.*",
              m -> "the table is given more than one primary key"),
          Saying.of(
              "PRIMARY KEY column is not defined: (.*)",
              m -> "the primary key names column " + m.group(1) + ", which the table has not"),
          Saying.of("(?s).*No enum constant .*\\.(\\w+)", m -> "there is no option " + m.group(1)),
          Saying.of(
              "Binary literal string must contain only.*",
              m -> "a binary literal takes the digits 0 to 9 and A to F only"));

  private SqlErrors() {}

  /**
   * What a statement is about, as far as errors need it.
   *
   * @param target the table that it writes, as the caller calls it; empty for none
   * @param keys that table's primary key
   */
  record About(SqlText text, Optional<String> target, Set<String> keys) {
    static About of(SqlText text) {
      return new About(text, Optional.empty(), Set.of());
    }

    /** The number that the engine has behind the name of a table that was split or moved. */
    private static final Pattern NUMBERED = Pattern.compile("\\b(\\w+?)__[0-9]+\\b");

    String asWritten(String message) {
      return NUMBERED
          .matcher(message)
          .replaceAll(
              found ->
                  Matcher.quoteReplacement(
                      text.written().toUpperCase(Locale.ROOT).contains(found.group())
                          ? found.group()
                          : found.group(1)));
    }

    private String table() {
      return target.map(name -> " of table " + name).orElse("");
    }
  }

  /** What is wrong with a statement that the engine did not run. */
  static FlotillaException said(RuntimeException e, int status, About about) {
    String message = about.asWritten(message(e));
    if (status == IgniteQueryErrorCode.DUPLICATE_KEY
        || message.startsWith("Failed to INSERT some keys because they are already in cache")) {
      return new FlotillaException(
          Code.CONFLICT,
          "a row with that primary key is there already: " + keys(message),
          "Nothing was done; UPDATE it, or choose another key.",
          e);
    }
    Matcher placed = PLACE.matcher(message);
    String where = "";
    String what = message;
    if (placed.matches()) {
      where =
          " at "
              + about
                  .text()
                  .place(Integer.parseInt(placed.group(1)), Integer.parseInt(placed.group(2)));
      what = placed.group(3);
    }
    Optional<FlotillaException> missing = missing(what, where, about, e);
    if (missing.isPresent()) {
      return missing.get();
    }
    for (Saying saying : SAYINGS) {
      Matcher matcher = saying.pattern().matcher(what);
      if (matcher.matches()) {
        return new FlotillaException(
            saying.code(),
            "the statement cannot be run" + where + ": " + saying.words().apply(matcher),
            switch (saying.code()) {
              case NOT_FOUND -> "Check the name.";
              case CONFLICT -> "Choose another name.";
              default -> NOTHING;
            },
            e);
      }
    }
    return new FlotillaException(
        Code.INVALID, "the statement cannot be run" + where + ": " + plain(what, e), NOTHING, e);
  }

  /** A statement on which the engine's planner broke. */
  static FlotillaException unplanned(Throwable e) {
    log.warn("the planner broke on a statement", e);
    return new FlotillaException(
        Code.INVALID,
        "the statement cannot be planned: an expression is of a kind or type that the planner does"
            + " not take there",
        "Nothing was done; compare values of one type only, and use plain columns.",
        e);
  }

  /** A column that must have a value, and has none. */
  private static Optional<FlotillaException> missing(
      String what, String where, About about, RuntimeException e) {
    Matcher column =
        Pattern.compile(
                "Column '(.*)' has no default value and does not allow NULLs"
                    + "|Null (?:value|key) is not allowed for column '(.*)'")
            .matcher(what);
    String wrong;
    if (column.matches()) {
      String name = column.group(1) == null ? column.group(2) : column.group(1);
      wrong =
          "the statement cannot be run"
              + where
              + ": column "
              + name
              + about.table()
              + " cannot be NULL"
              + (about.keys().contains(name) ? ", since it belongs to the primary key" : "");
    } else if (about.target().isPresent()
        && !about.keys().isEmpty()
        && (what.equals("null") || what.contains("Ouch! Argument cannot be null: key"))) {
      // The engine's way to say that a row has no key.
      wrong =
          "the statement cannot be run: "
              + (about.keys().size() == 1 ? "column " : "columns ")
              + String.join(", ", about.keys())
              + about.table()
              + " cannot be NULL, since the primary key cannot";
    } else {
      return Optional.empty();
    }
    return Optional.of(
        new FlotillaException(Code.INVALID, wrong, "Nothing was done; give it a value.", e));
  }

  /** What is wrong with a statement that is not SQL, or not of a kind that is offered. */
  static FlotillaException unparsed(String statement, SqlParseException e) {
    String first = firstWord(statement);
    String upper = first.toUpperCase(Locale.ROOT);
    if (upper.equals("EXPLAIN")) {
      Optional<FlotillaException> explain = explained(statement);
      if (explain.isPresent()) {
        return explain.get();
      }
    } else if (INSTEAD.containsKey(upper)) {
      return notOffered(upper);
    } else if (!first.isEmpty() && !OFFERED.contains(upper)) {
      Optional<String> meant =
          OFFERED.stream().filter(word -> distance(word, upper) <= 2).findFirst();
      return new FlotillaException(
          Code.INVALID,
          "cannot parse the statement at line 1, column "
              + (statement.indexOf(first) + 1)
              + ": no statement begins with "
              + shortened(first),
          meant
              .map(word -> "Did you mean " + word + "?")
              .orElse("A statement begins with " + String.join(", ", OFFERED) + "."));
    }
    return malformed(statement, e);
  }

  /** A statement that parses, but is not for users. */
  static FlotillaException notOffered(String statement) {
    String[] words = statement.strip().split("\\s+", 3);
    String first = words[0].toUpperCase(Locale.ROOT);
    boolean definition = List.of("CREATE", "ALTER", "DROP").contains(first) && words.length > 1;
    if (definition && first.equals("ALTER") && words[1].equalsIgnoreCase("TABLE")) {
      return new FlotillaException(
          Code.INVALID,
          "this form of ALTER TABLE is not offered",
          "It takes ADD COLUMN, DROP COLUMN, SPLIT SHARD AT (…) and MOVE SHARD n TO NODES (…).");
    }
    return new FlotillaException(
        Code.INVALID,
        (definition ? first + " " + words[1].toUpperCase(Locale.ROOT) : first) + " is not offered",
        definition
            ? "Tables and indexes can be created, altered and dropped."
            : INSTEAD.getOrDefault(first, "Statements are " + String.join(", ", OFFERED) + "."));
  }

  private static Optional<FlotillaException> explained(String statement) {
    Matcher matcher =
        Pattern.compile("(?is)EXPLAIN\\s+(PLAN\\s+FOR\\s+)?(\\w+).*").matcher(statement.strip());
    if (!matcher.matches()) {
      return Optional.empty();
    }
    String word = matcher.group(2).toUpperCase(Locale.ROOT);
    if (List.of("CREATE", "DROP", "ALTER").contains(word)) {
      return Optional.of(
          new FlotillaException(
              Code.INVALID,
              "EXPLAIN shows how SELECT, INSERT, UPDATE, DELETE and MERGE would run; "
                  + word
                  + " has no plan",
              "Leave EXPLAIN out to run it."));
    }
    return matcher.group(1) == null && !word.equals("PLAN")
        ? Optional.of(
            new FlotillaException(
                Code.INVALID,
                "cannot parse the statement: EXPLAIN is followed by " + shortened(word),
                "Write EXPLAIN PLAN FOR and the statement."))
        : Optional.empty();
  }

  private static FlotillaException malformed(String statement, SqlParseException e) {
    String message = firstLine(String.valueOf(e.getMessage()));
    SqlParserPos position = e.getPos();
    if (position == null) {
      Matcher lexical =
          Pattern.compile(".*Lexical error at line (\\d+), column (\\d+).*").matcher(message);
      if (lexical.matches()) {
        position =
            new SqlParserPos(
                Integer.parseInt(lexical.group(1)),
                Math.max(1, Integer.parseInt(lexical.group(2)) - 1));
      }
    }
    if (position == null) {
      for (Saying saying : SAYINGS) {
        Matcher matcher = saying.pattern().matcher(message);
        if (matcher.matches()) {
          return new FlotillaException(
              Code.INVALID,
              "cannot parse the statement: " + saying.words().apply(matcher),
              NOTHING,
              e);
        }
      }
      return new FlotillaException(
          Code.INVALID, "cannot parse the statement: " + plain(message, e), NOTHING, e);
    }
    int offset =
        Math.clamp(
            SqlText.offset(statement, position.getLineNum(), position.getColumnNum()),
            0,
            statement.length());
    String token = token(statement, offset);
    if (message.contains("Lexical error") && token.isEmpty()) {
      token = lastWord(statement);
    }
    String wrong;
    String remedy = "See what stands before it.";
    if ((message.contains("<EOF>") && !message.contains("Lexical"))
        || (statement.substring(offset).strip().equals(token)
            && message.contains("near the keyword"))) {
      wrong = "the statement ends too early, after " + shortened(lastWord(statement));
      remedy = "Complete it.";
    } else if (token.startsWith("'") || token.startsWith("\"")) {
      boolean closed = token.length() > 1 && token.endsWith(token.substring(0, 1));
      wrong =
          closed
              ? shortened(token) + " is not expected there"
              : "the quote " + token.charAt(0) + " is never closed";
      remedy = closed ? remedy : "Close it; write a quote inside a text twice.";
    } else if (token.equals(";")) {
      wrong = "something follows the semicolon";
      remedy = "Send one statement at a time.";
    } else if (message.contains("near the keyword")) {
      int next = statement.indexOf(token, offset) + token.length();
      String rest = statement.substring(next);
      String following = token(rest.stripLeading(), 0);
      wrong = "something is wrong near " + shortened(token + " " + following);
      remedy = "See what belongs there; a name that is a word of SQL stands in double quotes.";
    } else {
      wrong = shortened(token) + " is not expected there";
    }
    return new FlotillaException(
        Code.INVALID,
        "cannot parse the statement at "
            + SqlText.of(statement).place(position.getLineNum(), position.getColumnNum())
            + ": "
            + wrong,
        remedy,
        e);
  }

  private static String token(String statement, int offset) {
    String rest = statement.substring(offset);
    Matcher matcher = Pattern.compile("(?s)'[^']*'?|\"[^\"]*\"?|\\w+|\\S").matcher(rest);
    return matcher.lookingAt() ? matcher.group() : "";
  }

  private static String firstWord(String statement) {
    Matcher matcher =
        Pattern.compile("(?s)(?:\\s|--[^\\n]*\\n|/\\*.*?\\*/)*(\\w+).*").matcher(statement);
    return matcher.matches() ? matcher.group(1) : "";
  }

  private static String lastWord(String statement) {
    String[] words = statement.strip().split("\\s+");
    return words[words.length - 1];
  }

  private static String shortened(String text) {
    String line = text.replace('\n', ' ');
    return line.length() > 40 ? line.substring(0, 40) + "…" : line;
  }

  /** Edits between two words, by Levenshtein's recurrence. */
  private static int distance(String a, String b) {
    int[] row = new int[b.length() + 1];
    for (int j = 0; j <= b.length(); j++) {
      row[j] = j;
    }
    for (int i = 1; i <= a.length(); i++) {
      int diagonal = row[0];
      row[0] = i;
      for (int j = 1; j <= b.length(); j++) {
        int substituted = diagonal + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
        diagonal = row[j];
        row[j] = Math.min(substituted, 1 + Math.min(row[j], row[j - 1]));
      }
    }
    return row[b.length()];
  }

  private static String meant(@Nullable String other) {
    return other == null ? "" : "; did you mean " + other + "?";
  }

  private static String lower(String word) {
    return word.toLowerCase(Locale.ROOT);
  }

  private static String a(String word) {
    return (word.equals("Index") ? "an " : "a ") + lower(word);
  }

  private static String types(String arguments) {
    return arguments.replaceAll("[<>$]", "").replaceAll("\\s+", " ");
  }

  private static String shortType(String javaClass) {
    String known = SqlValues.type(javaClass);
    return known.equals("OTHER") ? SqlValues.type("java.lang." + javaClass) : known;
  }

  /** The keys of an error about rows that are there, without the engine's wrapping of them. */
  private static String keys(String message) {
    int at = message.indexOf("keys=");
    return at < 0
        ? "see the statement's keys"
        : message
            .substring(at + 5)
            .replaceFirst("]$", "")
            .replaceAll("[\\w.$-]+ \\[idHash=-?\\d+, hash=-?\\d+, ([^\\]]*)]", "($1)")
            .replaceAll("^\\[|]$", "");
  }

  private static String plain(String message, Exception e) {
    String line = firstLine(message).replaceFirst("[.\\s]+$", "");
    if (line.isEmpty() || line.length() > 400 || INSIDE.matcher(line).find()) {
      log.warn("a statement was refused in words that are not for users", e);
      return "the engine refuses it, in words that this node's log has";
    }
    return line;
  }

  private static String firstLine(String message) {
    return message.lines().findFirst().orElse("");
  }

  /** The most telling message of a chain of causes: the first that is not only a wrapping. */
  static String message(Throwable e) {
    String message = String.valueOf(e.getMessage());
    for (Throwable cause = e; cause != null; cause = cause.getCause()) {
      message = String.valueOf(cause.getMessage());
      if ((cause instanceof IgniteSQLException || cause instanceof CalciteException)
          && !message.equals("Failed to plan query")
          && !message.startsWith("An error occurred while query executing")) {
        break;
      }
    }
    return firstLine(message.replaceFirst("^Failed to (validate|parse) query\\. ", ""));
  }
}
