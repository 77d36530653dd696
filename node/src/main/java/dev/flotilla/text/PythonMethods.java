package dev.flotilla.text;

import dev.flotilla.text.PythonValue.Arguments;
import dev.flotilla.text.PythonValue.Dict;
import dev.flotilla.text.PythonValue.None;
import dev.flotilla.text.PythonValue.Sequence;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.function.IntPredicate;

/** The methods of Python's str, list, tuple and dict that leave them unchanged. */
final class PythonMethods {

  private static final Set<String> TEXT =
      Set.of(
          "strip",
          "lstrip",
          "rstrip",
          "split",
          "rsplit",
          "splitlines",
          "replace",
          "startswith",
          "endswith",
          "lower",
          "upper",
          "title",
          "capitalize",
          "swapcase",
          "casefold",
          "find",
          "rfind",
          "index",
          "rindex",
          "count",
          "join",
          "format",
          "isdigit",
          "isdecimal",
          "isnumeric",
          "isalpha",
          "isalnum",
          "isspace",
          "isupper",
          "islower",
          "istitle",
          "removeprefix",
          "removesuffix",
          "zfill",
          "center",
          "ljust",
          "rjust",
          "partition",
          "rpartition",
          "expandtabs");
  private static final Set<String> SEQUENCE = Set.of("index", "count");
  private static final Set<String> DICT = Set.of("get", "items", "keys", "values");

  /** Methods that would change a value, which Jinja2's immutable sandbox refuses. */
  private static final Set<String> CHANGES_SEQUENCE =
      Set.of("append", "extend", "insert", "pop", "remove", "reverse", "sort", "clear");

  private static final Set<String> CHANGES_DICT =
      Set.of("pop", "popitem", "update", "setdefault", "clear");

  private PythonMethods() {}

  static boolean has(Object value, String name) {
    return switch (value) {
      case MarkedText text -> TEXT.contains(name);
      case Sequence sequence ->
          SEQUENCE.contains(name) || (name.equals("copy") && !sequence.tuple());
      case Dict dict -> DICT.contains(name) || name.equals("copy");
      default -> false;
    };
  }

  static boolean isUnsafe(Object value, String name) {
    return name.startsWith("__")
        || (value instanceof Sequence sequence
            && !sequence.tuple()
            && CHANGES_SEQUENCE.contains(name))
        || (value instanceof Dict && CHANGES_DICT.contains(name));
  }

  static Object call(Object value, String name, Arguments arguments, JinjaBudget budget) {
    return switch (value) {
      case MarkedText text -> {
        budget.characters(text.length());
        yield text(text, name, arguments, budget);
      }
      case Sequence sequence -> {
        budget.steps(sequence.items().size());
        yield sequence(sequence, name, arguments);
      }
      case Dict dict -> {
        if (!name.equals("get")) {
          budget.steps(dict.items().size());
        }
        yield dict(dict, name, arguments);
      }
      default -> throw new IllegalStateException(name);
    };
  }

  private static Object dict(Dict dict, String name, Arguments arguments) {
    return switch (name) {
      case "get" ->
          dict.items()
              .getOrDefault(
                  PythonValue.key(arguments.required(0, "key")),
                  arguments.or(1, "default", None.NONE));
      case "items" -> items(dict);
      case "keys" -> Sequence.list(new ArrayList<>(dict.items().keySet()));
      case "values" -> Sequence.list(new ArrayList<>(dict.items().values()));
      case "copy" -> new Dict(new java.util.LinkedHashMap<>(dict.items()));
      default -> throw new IllegalStateException(name);
    };
  }

  static Sequence items(Dict dict) {
    List<Object> pairs = new ArrayList<>();
    for (Map.Entry<Object, Object> entry : dict.items().entrySet()) {
      pairs.add(Sequence.tuple(entry.getKey(), entry.getValue()));
    }
    return Sequence.list(pairs);
  }

  private static Object sequence(Sequence sequence, String name, Arguments arguments) {
    if (name.equals("copy")) {
      return Sequence.list(new ArrayList<>(sequence.items()));
    }
    Object wanted = arguments.required(0, "value");
    long count = 0;
    for (int i = 0; i < sequence.items().size(); i++) {
      if (PythonValue.equal(sequence.items().get(i), wanted)) {
        if (name.equals("index")) {
          return (long) i;
        }
        count++;
      }
    }
    if (name.equals("index")) {
      throw new TemplateException("ValueError", "the value is not in the list");
    }
    return count;
  }

  private static Object text(
      MarkedText text, String name, Arguments arguments, JinjaBudget budget) {
    String value = text.value();
    return switch (name) {
      case "strip" -> strip(text, arguments.or(0, "chars", None.NONE), true, true);
      case "lstrip" -> strip(text, arguments.or(0, "chars", None.NONE), true, false);
      case "rstrip" -> strip(text, arguments.or(0, "chars", None.NONE), false, true);
      case "split" -> split(text, arguments, budget);
      case "rsplit" -> rsplit(text, arguments, budget);
      case "splitlines" -> splitLines(text, arguments.flag(0, "keepends", false));
      case "replace" ->
          replace(
              text,
              string(arguments.required(0, "old")),
              string(arguments.required(1, "new")),
              arguments.integer(2, "count", -1),
              budget);
      case "startswith" -> affix(text, arguments, true);
      case "endswith" -> affix(text, arguments, false);
      case "lower", "casefold" -> text.withValue(value.toLowerCase(Locale.ROOT));
      case "upper" -> text.withValue(value.toUpperCase(Locale.ROOT));
      case "swapcase" -> mapped(text, c -> Character.isUpperCase(c) ? lower(c) : upper(c));
      case "title" -> title(text);
      case "capitalize" -> capitalize(text);
      case "find", "index" -> find(text, arguments, name, false);
      case "rfind", "rindex" -> find(text, arguments, name, true);
      case "count" -> count(value, string(arguments.required(0, "sub")).value());
      case "join" -> join(text, PythonValue.elements(arguments.required(0, "iterable")), budget);
      case "format" -> PythonFormat.format(text, arguments, budget);
      case "isdigit", "isdecimal", "isnumeric" -> every(value, Character::isDigit);
      case "isalpha" -> every(value, Character::isLetter);
      case "isalnum" -> every(value, Character::isLetterOrDigit);
      case "isspace" -> every(value, c -> c < 0x10000 && PythonText.isSpace((char) c));
      case "isupper" -> cased(value) && value.equals(value.toUpperCase(Locale.ROOT));
      case "islower" -> cased(value) && value.equals(value.toLowerCase(Locale.ROOT));
      case "istitle" -> cased(value) && value.equals(title(text).value());
      case "removeprefix" -> {
        MarkedText affix = string(arguments.required(0, "prefix"));
        yield value.startsWith(affix.value())
            ? text.substring(affix.length(), text.length())
            : text;
      }
      case "removesuffix" -> {
        MarkedText affix = string(arguments.required(0, "suffix"));
        yield value.endsWith(affix.value())
            ? text.substring(0, text.length() - affix.length())
            : text;
      }
      case "zfill" -> {
        boolean signed = value.startsWith("-") || value.startsWith("+");
        long zeros = arguments.integer(0, "width", 0) - text.length();
        MarkedText.Builder out = new MarkedText.Builder(budget).append(text, 0, signed ? 1 : 0);
        pad(out, MarkedText.trusted("0"), zeros);
        yield out.append(text, signed ? 1 : 0, text.length()).build();
      }
      case "center" -> justify(text, arguments, 0.5, budget);
      case "ljust" -> justify(text, arguments, 0, budget);
      case "rjust" -> justify(text, arguments, 1, budget);
      case "partition" -> partition(text, string(arguments.required(0, "sep")), false);
      case "rpartition" -> partition(text, string(arguments.required(0, "sep")), true);
      case "expandtabs" -> {
        MarkedText.Builder spaces = new MarkedText.Builder(budget);
        pad(spaces, MarkedText.trusted(" "), arguments.integer(0, "tabsize", 8));
        yield replace(text, MarkedText.trusted("\t"), spaces.build(), -1, budget);
      }
      default -> throw new IllegalStateException(name);
    };
  }

  static MarkedText string(Object value) {
    if (value instanceof MarkedText text) {
      return text;
    }
    if (value instanceof PythonValue.Undefined undefined) {
      throw undefined.error();
    }
    throw TemplateException.type("expected str, got " + PythonValue.typeName(value));
  }

  static MarkedText strip(MarkedText text, Object characters, boolean left, boolean right) {
    String set = characters == None.NONE ? "" : string(characters).value();
    boolean spaces = characters == None.NONE;
    int from = 0;
    int to = text.length();
    while (left && from < to && isIn(text.charAt(from), set, spaces)) {
      from++;
    }
    while (right && to > from && isIn(text.charAt(to - 1), set, spaces)) {
      to--;
    }
    return text.substring(from, to);
  }

  private static boolean isIn(char c, String set, boolean spaces) {
    return spaces ? PythonText.isSpace(c) : set.indexOf(c) >= 0;
  }

  private static Sequence split(MarkedText text, Arguments arguments, JinjaBudget budget) {
    Object separator = arguments.or(0, "sep", None.NONE);
    long splits = arguments.integer(1, "maxsplit", -1);
    List<Object> parts = new ArrayList<>();
    int from = 0;
    if (separator == None.NONE) {
      while (true) {
        while (from < text.length() && PythonText.isSpace(text.charAt(from))) {
          from++;
        }
        if (from == text.length()) {
          break;
        }
        int to = from;
        while (to < text.length() && !PythonText.isSpace(text.charAt(to))) {
          to++;
        }
        if (parts.size() == splits) {
          parts.add(strip(text.substring(from, text.length()), None.NONE, false, true));
          break;
        }
        parts.add(text.substring(from, to));
        from = to;
      }
    } else {
      String by = separator(separator);
      for (int at = text.value().indexOf(by);
          at >= 0 && parts.size() != splits;
          at = text.value().indexOf(by, from)) {
        parts.add(text.substring(from, at));
        from = at + by.length();
      }
      parts.add(text.substring(from, text.length()));
    }
    budget.steps(parts.size());
    return Sequence.list(parts);
  }

  private static Sequence rsplit(MarkedText text, Arguments arguments, JinjaBudget budget) {
    long splits = arguments.integer(1, "maxsplit", -1);
    Object separator = arguments.or(0, "sep", None.NONE);
    if (splits < 0) {
      return split(text, new Arguments(List.of(separator), Map.of()), budget);
    }
    List<Object> parts = new ArrayList<>();
    int to = text.length();
    boolean spaces = separator == None.NONE;
    String by = spaces ? "" : separator(separator);
    while (true) {
      while (spaces && to > 0 && PythonText.isSpace(text.charAt(to - 1))) {
        to--;
      }
      int from = to;
      if (spaces) {
        while (from > 0 && !PythonText.isSpace(text.charAt(from - 1))) {
          from--;
        }
        from = from == 0 ? -1 : from - 1;
      } else {
        from = to < by.length() ? -1 : text.value().lastIndexOf(by, to - by.length());
      }
      if (spaces && to == 0) {
        break;
      }
      if (parts.size() == splits) {
        parts.addFirst(text.substring(0, to));
        break;
      }
      if (from < 0) {
        parts.addFirst(
            strip(text.substring(0, to), spaces ? None.NONE : MarkedText.EMPTY, true, false));
        break;
      }
      parts.addFirst(text.substring(from + (spaces ? 1 : by.length()), to));
      to = from;
    }
    budget.steps(parts.size());
    return Sequence.list(parts);
  }

  private static String separator(Object separator) {
    MarkedText by = string(separator);
    if (by.isEmpty()) {
      throw new TemplateException("ValueError", "empty separator");
    }
    return by.value();
  }

  static Sequence splitLines(MarkedText text, boolean keepEnds) {
    List<Object> lines = new ArrayList<>();
    int from = 0;
    while (from < text.length()) {
      int end = from;
      while (end < text.length()
          && "\n\r\u000B\f\u001C\u001D\u001E\u0085\u2028\u2029".indexOf(text.charAt(end)) < 0) {
        end++;
      }
      int next = end < text.length() ? end + 1 : end;
      if (next < text.length() && text.charAt(end) == '\r' && text.charAt(next) == '\n') {
        next++;
      }
      lines.add(text.substring(from, keepEnds ? next : end));
      from = next;
    }
    return Sequence.list(lines);
  }

  static MarkedText replace(
      MarkedText text, MarkedText old, MarkedText by, long count, JinjaBudget budget) {
    MarkedText.Builder out = new MarkedText.Builder(budget);
    long left = count < 0 ? Long.MAX_VALUE : count;
    int from = 0;
    if (old.isEmpty()) {
      while (left-- > 0) {
        out.append(by);
        if (from == text.length()) {
          return out.build();
        }
        int next = from + Character.charCount(text.value().codePointAt(from));
        out.append(text, from, next);
        from = next;
      }
      return out.append(text, from, text.length()).build();
    }
    for (int at = text.value().indexOf(old.value());
        at >= 0 && left-- > 0;
        at = text.value().indexOf(old.value(), from)) {
      out.append(text, from, at).append(by);
      from = at + old.length();
    }
    return from == 0 ? text : out.append(text, from, text.length()).build();
  }

  private static boolean affix(MarkedText text, Arguments arguments, boolean start) {
    Object affix = arguments.required(0, "prefix");
    long from = arguments.integer(1, "start", 0);
    String value = text.value().substring(Math.clamp(from, 0, text.length()));
    List<Object> choices =
        affix instanceof Sequence sequence && sequence.tuple() ? sequence.items() : List.of(affix);
    for (Object choice : choices) {
      String part = string(choice).value();
      if (start ? value.startsWith(part) : value.endsWith(part)) {
        return true;
      }
    }
    return false;
  }

  private static Object find(MarkedText text, Arguments arguments, String name, boolean last) {
    String part = string(arguments.required(0, "sub")).value();
    long size = PythonValue.length(text);
    long start = arguments.integer(1, "start", 0);
    long stop = arguments.integer(2, "end", size);
    int from = (int) Math.clamp(start < 0 ? start + size : start, 0, size);
    int to = (int) Math.clamp(stop < 0 ? stop + size : stop, from, size);
    int first = text.value().offsetByCodePoints(0, from);
    String range = text.value().substring(first, text.value().offsetByCodePoints(first, to - from));
    int at = last ? range.lastIndexOf(part) : range.indexOf(part);
    if (at < 0) {
      if (name.endsWith("index")) {
        throw new TemplateException("ValueError", "substring not found");
      }
      return -1L;
    }
    return (long) from + range.codePointCount(0, at);
  }

  private static Object count(String text, String part) {
    if (part.isEmpty()) {
      return (long) text.codePointCount(0, text.length()) + 1;
    }
    long count = 0;
    for (int at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length())) {
      count++;
    }
    return count;
  }

  private static MarkedText join(MarkedText separator, List<Object> items, JinjaBudget budget) {
    MarkedText.Builder out = new MarkedText.Builder(budget);
    for (int i = 0; i < items.size(); i++) {
      if (i > 0) {
        out.append(separator);
      }
      if (!(items.get(i) instanceof MarkedText item)) {
        throw TemplateException.type(
            "sequence item "
                + i
                + ": expected str instance, "
                + PythonValue.typeName(items.get(i))
                + " found");
      }
      out.append(item);
    }
    return out.build();
  }

  private static Sequence partition(MarkedText text, MarkedText separator, boolean last) {
    String by = separator(separator);
    int at = last ? text.value().lastIndexOf(by) : text.value().indexOf(by);
    if (at < 0) {
      return last
          ? Sequence.tuple(MarkedText.EMPTY, MarkedText.EMPTY, text)
          : Sequence.tuple(text, MarkedText.EMPTY, MarkedText.EMPTY);
    }
    return Sequence.tuple(
        text.substring(0, at), separator, text.substring(at + by.length(), text.length()));
  }

  private static MarkedText justify(
      MarkedText text, Arguments arguments, double share, JinjaBudget budget) {
    long padding = Math.max(0, arguments.integer(0, "width", 80) - PythonValue.length(text));
    MarkedText fill = string(arguments.or(1, "fillchar", MarkedText.trusted(" ")));
    long before = (long) (padding * share);
    MarkedText.Builder out = new MarkedText.Builder(budget);
    pad(out, fill, before);
    out.append(text);
    pad(out, fill, padding - before);
    return out.build();
  }

  private static void pad(MarkedText.Builder out, MarkedText fill, long count) {
    for (long i = 0; i < count && !fill.isEmpty(); i++) {
      out.append(fill);
    }
  }

  private static boolean every(String value, IntPredicate predicate) {
    return !value.isEmpty() && value.codePoints().allMatch(predicate);
  }

  private static boolean cased(String value) {
    return value.codePoints().anyMatch(c -> Character.isUpperCase(c) || Character.isLowerCase(c));
  }

  private interface CharacterMap {
    char map(char c);
  }

  private static char lower(char c) {
    return Character.toLowerCase(c);
  }

  private static char upper(char c) {
    return Character.toUpperCase(c);
  }

  private static MarkedText mapped(MarkedText text, CharacterMap map) {
    char[] characters = text.value().toCharArray();
    for (int i = 0; i < characters.length; i++) {
      characters[i] = map.map(characters[i]);
    }
    return text.withValue(new String(characters));
  }

  private static MarkedText title(MarkedText text) {
    char[] characters = text.value().toCharArray();
    boolean inWord = false;
    for (int i = 0; i < characters.length; i++) {
      char c = characters[i];
      characters[i] = inWord ? lower(c) : upper(c);
      inWord = Character.isLetter(c);
    }
    return text.withValue(new String(characters));
  }

  static MarkedText capitalize(MarkedText text) {
    char[] characters = text.value().toCharArray();
    for (int i = 0; i < characters.length; i++) {
      characters[i] = i == 0 ? upper(characters[i]) : lower(characters[i]);
    }
    return text.withValue(new String(characters));
  }
}
