package dev.flotilla.text;

import dev.flotilla.text.PythonText.JsonStyle;
import dev.flotilla.text.PythonValue.Arguments;
import dev.flotilla.text.PythonValue.Dict;
import dev.flotilla.text.PythonValue.None;
import dev.flotilla.text.PythonValue.Sequence;
import dev.flotilla.text.PythonValue.Undefined;
import java.math.BigDecimal;
import java.math.RoundingMode;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.function.UnaryOperator;

/** Jinja2's filters, with {@code tojson} as Hugging Face defines it (no HTML escaping). */
final class JinjaFilters {

  static final Set<String> NAMES =
      Set.of(
          "abs",
          "attr",
          "batch",
          "capitalize",
          "center",
          "count",
          "d",
          "default",
          "dictsort",
          "e",
          "escape",
          "first",
          "float",
          "forceescape",
          "format",
          "groupby",
          "indent",
          "int",
          "items",
          "join",
          "last",
          "length",
          "list",
          "lower",
          "map",
          "max",
          "min",
          "pprint",
          "reject",
          "rejectattr",
          "replace",
          "reverse",
          "round",
          "safe",
          "select",
          "selectattr",
          "slice",
          "sort",
          "string",
          "striptags",
          "sum",
          "title",
          "tojson",
          "trim",
          "truncate",
          "unique",
          "upper",
          "urlencode",
          "wordcount",
          "wordwrap");

  private final JinjaBudget budget;

  /** Looks up attributes as the interpreter does. */
  private final JinjaInterpreter interpreter;

  JinjaFilters(JinjaInterpreter interpreter, JinjaBudget budget) {
    this.interpreter = interpreter;
    this.budget = budget;
  }

  Object apply(String name, Object value, Arguments arguments) {
    if (value instanceof MarkedText text) {
      budget.characters(text.length());
    } else if (value instanceof Sequence sequence) {
      budget.steps(sequence.items().size());
    }
    return switch (name) {
      case "abs" -> PythonValue.compare(value, 0L, "<") < 0 ? PythonValue.negate(value) : value;
      case "attr" -> {
        String attribute = string(arguments.required(0, "name")).value();
        // The methods of a dict are its attributes; its elements are not.
        yield value instanceof Dict && !PythonMethods.has(value, attribute)
            ? interpreter.attribute(new Dict(), attribute)
            : interpreter.attribute(value, attribute);
      }
      case "batch" -> batch(value, arguments);
      case "capitalize" -> PythonMethods.capitalize(string(value));
      case "center" -> method(value, "center", arguments);
      case "count", "length" -> PythonValue.length(value);
      case "d", "default" ->
          value instanceof Undefined
                  || (arguments.flag(1, "boolean", false) && !PythonValue.truth(value))
              ? arguments.or(0, "default_value", MarkedText.EMPTY)
              : value;
      case "dictsort" -> dictSort(value, arguments);
      case "e", "escape", "forceescape" -> escape(string(value));
      case "first" -> end(value, true);
      case "last" -> end(value, false);
      case "float" -> real(value, arguments);
      case "int" -> integer(value, arguments);
      case "format" ->
          PythonFormat.percent(
              string(value),
              arguments.named().isEmpty()
                  ? arguments.positional()
                  : List.of(PythonValue.fromJava(arguments.named())),
              budget);
      case "groupby" -> groupBy(value, arguments);
      case "indent" -> indent(string(value), arguments);
      case "items" ->
          switch (value) {
            case Dict dict -> PythonMethods.items(dict);
            case Undefined undefined -> Sequence.list(List.of());
            default -> throw TemplateException.type("Can only get item pairs from a mapping.");
          };
      case "join" -> join(value, arguments);
      case "list" -> Sequence.list(new ArrayList<>(PythonValue.elements(value)));
      case "lower", "upper" -> method(value, name, Arguments.NONE);
      case "map" -> map(value, arguments);
      case "max" -> extreme(value, arguments, 1);
      case "min" -> extreme(value, arguments, -1);
      case "pprint" -> PythonText.repr(value, budget);
      case "select" -> select(value, arguments, true, false);
      case "reject" -> select(value, arguments, false, false);
      case "selectattr" -> select(value, arguments, true, true);
      case "rejectattr" -> select(value, arguments, false, true);
      case "replace" ->
          PythonMethods.replace(
              string(value),
              string(arguments.required(0, "old")),
              string(arguments.required(1, "new")),
              arguments.integer(2, "count", -1),
              budget);
      case "reverse" -> reverse(value);
      case "round" -> round(value, arguments);
      case "safe", "string" -> string(value);
      case "slice" -> slices(value, arguments);
      case "sort" -> sort(value, arguments);
      case "striptags" -> stripTags(string(value));
      case "sum" -> sum(value, arguments);
      case "title" -> title(string(value));
      case "tojson" -> toJson(value, arguments);
      case "trim" ->
          PythonMethods.strip(string(value), arguments.or(0, "chars", None.NONE), true, true);
      case "truncate" -> truncate(string(value), arguments);
      case "unique" -> unique(value, arguments);
      case "urlencode" ->
          string(value)
              .withValue(
                  URLEncoder.encode(string(value).value(), StandardCharsets.UTF_8)
                      .replace("+", "%20")
                      .replace("%2F", "/"));
      case "wordcount" -> PythonValue.length(method(value, "split", Arguments.NONE));
      case "wordwrap" -> wordWrap(string(value), arguments);
      default ->
          throw new TemplateException(
              "TemplateRuntimeError", "No filter named '" + name + "' found.");
    };
  }

  private MarkedText string(Object value) {
    return PythonText.str(value, budget);
  }

  private Object method(Object value, String name, Arguments arguments) {
    return PythonMethods.call(string(value), name, arguments, budget);
  }

  private MarkedText toJson(Object value, Arguments arguments) {
    // Hugging Face's signature: (x, ensure_ascii=False, indent=None, separators=None,
    // sort_keys=False)
    Object indent = arguments.or(1, "indent", None.NONE);
    boolean pretty = indent != None.NONE;
    String unit = "";
    if (indent instanceof MarkedText text) {
      unit = text.value();
    } else if (pretty) {
      unit = " ".repeat(Math.clamp(PythonValue.integer(indent), 0, 1000));
    }
    String itemSeparator = pretty ? "," : ", ";
    String keySeparator = ": ";
    if (arguments.or(2, "separators", None.NONE) instanceof Sequence separators
        && separators.items().size() == 2) {
      itemSeparator = string(separators.items().get(0)).value();
      keySeparator = string(separators.items().get(1)).value();
    }
    return PythonText.json(
        value,
        new JsonStyle(
            unit,
            pretty,
            arguments.flag(0, "ensure_ascii", false),
            arguments.flag(3, "sort_keys", false),
            itemSeparator,
            keySeparator),
        budget);
  }

  private MarkedText escape(MarkedText text) {
    MarkedText result = text;
    for (String[] pair :
        new String[][] {
          {"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}, {"'", "&#39;"}, {"\"", "&#34;"}
        }) {
      result =
          PythonMethods.replace(
              result, MarkedText.trusted(pair[0]), MarkedText.trusted(pair[1]), -1, budget);
    }
    return result;
  }

  private MarkedText stripTags(MarkedText text) {
    MarkedText.Builder out = new MarkedText.Builder(budget);
    int from = 0;
    while (true) {
      int open = text.value().indexOf('<', from);
      int close = open < 0 ? -1 : text.value().indexOf('>', open);
      if (close < 0) {
        break;
      }
      out.append(text, from, open);
      from = close + 1;
    }
    out.append(text, from, text.length());
    Sequence words = (Sequence) method(out.build(), "split", Arguments.NONE);
    return join(words, new Arguments(List.of(MarkedText.trusted(" ")), Map.of()));
  }

  /** Unlike {@code str.title}, an apostrophe is within a word. */
  private static MarkedText title(MarkedText text) {
    char[] characters = text.value().toLowerCase(Locale.ROOT).toCharArray();
    boolean begins = true;
    for (int i = 0; i < characters.length; i++) {
      if (begins) {
        characters[i] = Character.toUpperCase(characters[i]);
      }
      begins = "-({[<".indexOf(characters[i]) >= 0 || PythonText.isSpace(characters[i]);
    }
    return text.withValue(new String(characters));
  }

  private Object end(Object value, boolean first) {
    List<Object> items = PythonValue.elements(value);
    if (items.isEmpty()) {
      return new Undefined(
          first ? "No first item, sequence was empty." : "No last item, sequence was empty.");
    }
    return first ? items.getFirst() : items.getLast();
  }

  private Object real(Object value, Arguments arguments) {
    try {
      return switch (value) {
        case MarkedText text -> Double.parseDouble(text.value().strip().replace("_", ""));
        case Boolean b -> b ? 1.0 : 0.0;
        case Number number -> number.doubleValue();
        default -> arguments.or(0, "default", 0.0);
      };
    } catch (NumberFormatException e) {
      return arguments.or(0, "default", 0.0);
    }
  }

  private Object integer(Object value, Arguments arguments) {
    Object fallback = arguments.or(0, "default", 0L);
    try {
      return switch (value) {
        case MarkedText text -> {
          String digits = text.value().strip().replace("_", "");
          int base = (int) arguments.integer(1, "base", 10);
          try {
            yield (Object) Long.parseLong(digits, base);
          } catch (NumberFormatException e) {
            yield (Object) (long) Double.parseDouble(digits);
          }
        }
        case Boolean b -> b ? 1L : 0L;
        case Double d when d.isNaN() || d.isInfinite() -> fallback;
        case Double d -> d.longValue();
        case Number number -> number;
        default -> fallback;
      };
    } catch (NumberFormatException e) {
      return fallback;
    }
  }

  private Object round(Object value, Arguments arguments) {
    long precision = arguments.integer(0, "precision", 0);
    String method = string(arguments.or(1, "method", MarkedText.trusted("common"))).value();
    Object number = real(value, Arguments.NONE);
    double real = (Double) number;
    if (Double.isNaN(real) || Double.isInfinite(real) || Math.abs(precision) > 300) {
      return number;
    }
    RoundingMode mode =
        switch (method) {
          case "ceil" -> RoundingMode.CEILING;
          case "floor" -> RoundingMode.FLOOR;
          default -> RoundingMode.HALF_EVEN;
        };
    return new BigDecimal(real).setScale((int) precision, mode).doubleValue();
  }

  private MarkedText join(Object value, Arguments arguments) {
    MarkedText separator = string(arguments.or(0, "d", MarkedText.EMPTY));
    Object attribute = arguments.or(1, "attribute", None.NONE);
    MarkedText.Builder out = new MarkedText.Builder(budget);
    boolean first = true;
    for (Object item : PythonValue.elements(value)) {
      if (!first) {
        out.append(separator);
      }
      first = false;
      out.append(string(path(item, attribute)));
    }
    return out.build();
  }

  /** An attribute by a dotted path, or an index; the item itself for None. */
  private Object path(Object item, Object attribute) {
    if (attribute == None.NONE) {
      return item;
    }
    if (!(attribute instanceof MarkedText text)) {
      return interpreter.item(item, attribute);
    }
    Object result = item;
    for (String part : text.value().split("\\.", -1)) {
      Object key =
          !part.isEmpty() && part.length() < 9 && part.chars().allMatch(c -> c >= '0' && c <= '9')
              ? (Object) Long.parseLong(part)
              : MarkedText.trusted(part);
      result = interpreter.item(result, key);
    }
    return result;
  }

  private Object map(Object value, Arguments arguments) {
    List<Object> results = new ArrayList<>();
    Object attribute = arguments.or(Integer.MAX_VALUE, "attribute", None.NONE);
    if (attribute != None.NONE) {
      Object fallback = arguments.or(Integer.MAX_VALUE, "default", None.NONE);
      for (Object item : PythonValue.elements(value)) {
        Object result = path(item, attribute);
        results.add(
            result instanceof Undefined && arguments.named().containsKey("default")
                ? fallback
                : result);
      }
    } else {
      String filter = string(arguments.required(0, "filter")).value();
      for (Object item : PythonValue.elements(value)) {
        results.add(apply(filter, item, arguments.from(1)));
      }
    }
    return Sequence.list(results);
  }

  private Object select(Object value, Arguments arguments, boolean keep, boolean byAttribute) {
    Object attribute = byAttribute ? arguments.required(0, "attribute") : None.NONE;
    int next = byAttribute ? 1 : 0;
    Object test = arguments.or(next, "test", None.NONE);
    List<Object> kept = new ArrayList<>();
    for (Object item : PythonValue.elements(value)) {
      Object subject = path(item, attribute);
      boolean holds =
          test == None.NONE
              ? PythonValue.truth(subject)
              : JinjaTests.test(string(test).value(), subject, arguments.from(next + 1));
      if (holds == keep) {
        kept.add(item);
      }
    }
    return Sequence.list(kept);
  }

  private UnaryOperator<Object> folding(boolean caseSensitive) {
    return item ->
        !caseSensitive && item instanceof MarkedText text
            ? text.withValue(text.value().toLowerCase(Locale.ROOT))
            : item;
  }

  private static Comparator<Object> ordering(boolean reverse) {
    Comparator<Object> ordering = (left, right) -> PythonValue.compare(left, right, "<");
    return reverse ? ordering.reversed() : ordering;
  }

  private Object sort(Object value, Arguments arguments) {
    UnaryOperator<Object> fold = folding(arguments.flag(1, "case_sensitive", false));
    Object attribute = arguments.or(2, "attribute", None.NONE);
    List<Object> sorted = new ArrayList<>(PythonValue.elements(value));
    sorted.sort(
        Comparator.comparing(
            item -> fold.apply(path(item, attribute)),
            ordering(arguments.flag(0, "reverse", false))));
    return Sequence.list(sorted);
  }

  private Object dictSort(Object value, Arguments arguments) {
    if (!(value instanceof Dict dict)) {
      if (value instanceof Undefined undefined) {
        throw undefined.error();
      }
      throw TemplateException.type("'" + PythonValue.typeName(value) + "' has no items");
    }
    UnaryOperator<Object> fold = folding(arguments.flag(0, "case_sensitive", false));
    int position =
        string(arguments.or(1, "by", MarkedText.trusted("key"))).value().equals("value") ? 1 : 0;
    List<Object> pairs = new ArrayList<>(PythonMethods.items(dict).items());
    budget.steps(pairs.size());
    pairs.sort(
        Comparator.comparing(
            pair -> fold.apply(((Sequence) pair).items().get(position)),
            ordering(arguments.flag(2, "reverse", false))));
    return Sequence.list(pairs);
  }

  private Object groupBy(Object value, Arguments arguments) {
    Object attribute = arguments.required(0, "attribute");
    UnaryOperator<Object> fold = folding(arguments.flag(2, "case_sensitive", false));
    List<Object> sorted = new ArrayList<>(PythonValue.elements(value));
    sorted.sort(Comparator.comparing(item -> fold.apply(path(item, attribute)), ordering(false)));
    Map<Object, List<Object>> groups = new LinkedHashMap<>();
    Map<Object, Object> names = new LinkedHashMap<>();
    for (Object item : sorted) {
      Object name = path(item, attribute);
      Object key = PythonValue.key(fold.apply(name));
      names.putIfAbsent(key, name);
      groups.computeIfAbsent(key, k -> new ArrayList<>()).add(item);
    }
    List<Object> result = new ArrayList<>();
    groups.forEach(
        (key, items) ->
            result.add(Sequence.tuple(names.getOrDefault(key, key), Sequence.list(items))));
    return Sequence.list(result);
  }

  private Object unique(Object value, Arguments arguments) {
    UnaryOperator<Object> fold = folding(arguments.flag(0, "case_sensitive", false));
    Object attribute = arguments.or(1, "attribute", None.NONE);
    Map<Object, Object> seen = new LinkedHashMap<>();
    for (Object item : PythonValue.elements(value)) {
      seen.putIfAbsent(PythonValue.key(fold.apply(path(item, attribute))), item);
    }
    return Sequence.list(new ArrayList<>(seen.values()));
  }

  private Object extreme(Object value, Arguments arguments, int sign) {
    UnaryOperator<Object> fold = folding(arguments.flag(0, "case_sensitive", false));
    Object attribute = arguments.or(1, "attribute", None.NONE);
    Object best = new Undefined("No aggregated item, sequence was empty.");
    for (Object item : PythonValue.elements(value)) {
      if (best instanceof Undefined
          || sign
                  * PythonValue.compare(
                      fold.apply(path(item, attribute)), fold.apply(path(best, attribute)), "<")
              > 0) {
        best = item;
      }
    }
    return best;
  }

  private Object sum(Object value, Arguments arguments) {
    Object attribute = arguments.or(0, "attribute", None.NONE);
    Object total = arguments.or(1, "start", 0L);
    for (Object item : PythonValue.elements(value)) {
      total = PythonValue.binary("+", total, path(item, attribute), budget);
    }
    return total;
  }

  private Object reverse(Object value) {
    if (value instanceof MarkedText text) {
      return PythonValue.slice(text, None.NONE, None.NONE, -1L, budget);
    }
    return Sequence.list(new ArrayList<>(PythonValue.elements(value).reversed()));
  }

  private Object batch(Object value, Arguments arguments) {
    long size = Math.max(1, PythonValue.integer(arguments.required(0, "linecount")));
    Object fill = arguments.or(1, "fill_with", None.NONE);
    List<Object> rows = new ArrayList<>();
    List<Object> row = new ArrayList<>();
    for (Object item : PythonValue.elements(value)) {
      if (row.size() == size) {
        rows.add(Sequence.list(row));
        row = new ArrayList<>();
      }
      row.add(item);
    }
    if (!row.isEmpty()) {
      while (fill != None.NONE && row.size() < size) {
        budget.steps(1);
        row.add(fill);
      }
      rows.add(Sequence.list(row));
    }
    return Sequence.list(rows);
  }

  private Object slices(Object value, Arguments arguments) {
    List<Object> items = PythonValue.elements(value);
    long slices = Math.max(1, PythonValue.integer(arguments.required(0, "slices")));
    budget.steps(slices);
    Object fill = arguments.or(1, "fill_with", None.NONE);
    int each = (int) (items.size() / slices);
    int longer = (int) (items.size() % slices);
    List<Object> result = new ArrayList<>();
    int from = 0;
    for (long i = 0; i < slices; i++) {
      int to = from + each + (i < longer ? 1 : 0);
      List<Object> part = new ArrayList<>(items.subList(from, to));
      if (fill != None.NONE && i >= longer && longer > 0) {
        part.add(fill);
      }
      result.add(Sequence.list(part));
      from = to;
    }
    return Sequence.list(result);
  }

  private MarkedText indent(MarkedText text, Arguments arguments) {
    Object width = arguments.or(0, "width", 4L);
    MarkedText indentation =
        width instanceof MarkedText given
            ? given
            : (MarkedText)
                PythonValue.binary(
                    "*", MarkedText.trusted(" "), PythonValue.integer(width), budget);
    boolean first = arguments.flag(1, "first", false);
    boolean blank = arguments.flag(2, "blank", false);
    List<Object> lines = PythonMethods.splitLines(text, false).items();
    MarkedText.Builder out = new MarkedText.Builder(budget);
    for (int i = 0; i < lines.size(); i++) {
      MarkedText line = (MarkedText) lines.get(i);
      if (i > 0) {
        out.append("\n");
      }
      if (i == 0 ? first : blank || !line.isEmpty()) {
        out.append(indentation);
      }
      out.append(line);
    }
    if (text.value().endsWith("\n")) {
      out.append("\n");
      if (blank) {
        out.append(indentation);
      }
    }
    return out.build();
  }

  private MarkedText truncate(MarkedText text, Arguments arguments) {
    long length = arguments.integer(0, "length", 255);
    boolean killWords = arguments.flag(1, "killwords", false);
    MarkedText end = string(arguments.or(2, "end", MarkedText.trusted("...")));
    long leeway = arguments.integer(3, "leeway", 5);
    if (PythonValue.length(text) <= length + leeway) {
      return text;
    }
    MarkedText kept =
        (MarkedText)
            PythonValue.slice(
                text, None.NONE, Math.max(0, length - end.length()), None.NONE, budget);
    int space = kept.value().lastIndexOf(' ');
    if (!killWords && space >= 0) {
      kept = kept.substring(0, space);
    }
    return new MarkedText.Builder(budget).append(kept).append(end).build();
  }

  private MarkedText wordWrap(MarkedText text, Arguments arguments) {
    long width = Math.max(1, arguments.integer(0, "width", 79));
    MarkedText newline = string(arguments.or(2, "wrapstring", MarkedText.trusted("\n")));
    MarkedText.Builder out = new MarkedText.Builder(budget);
    boolean firstLine = true;
    for (Object line : PythonMethods.splitLines(text, false).items()) {
      if (!firstLine) {
        out.append(newline);
      }
      firstLine = false;
      long column = 0;
      for (Object word : ((Sequence) method(line, "split", Arguments.NONE)).items()) {
        long size = PythonValue.length(word);
        if (column > 0 && column + 1 + size > width) {
          out.append(newline);
          column = 0;
        } else if (column > 0) {
          out.append(" ");
          column++;
        }
        out.append((MarkedText) word);
        column += size;
      }
    }
    return out.build();
  }
}
