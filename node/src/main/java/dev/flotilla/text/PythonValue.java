package dev.flotilla.text;

import java.math.BigInteger;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The values of a template and Python's operations on them.
 *
 * <p>A value is one of: {@link None}, {@link Undefined}, Boolean, Long, BigInteger (from outside
 * only), Double, {@link MarkedText}, {@link Sequence}, {@link Dict}, {@link Namespace}, {@link
 * Callable} or {@link Loop}. Nothing else can get in, and attributes are looked up by name in a
 * fixed list, so no Java object can be reached from a template.
 */
final class PythonValue {

  /** Python's {@code None}. */
  enum None {
    NONE
  }

  /**
   * A variable or attribute that is not there: empty when printed or iterated, an error otherwise.
   *
   * @param kind the exception that its use raises
   */
  record Undefined(String message, String kind) {
    Undefined(String message) {
      this(message, "UndefinedError");
    }

    TemplateException error() {
      return new TemplateException(kind, message);
    }
  }

  /** A list or a tuple. */
  record Sequence(List<Object> items, boolean tuple) {
    static Sequence list(List<Object> items) {
      return new Sequence(items, false);
    }

    static Sequence tuple(Object... items) {
      return new Sequence(List.of(items), true);
    }

    @Override
    public int hashCode() {
      return items.size();
    }

    @Override
    public boolean equals(Object other) {
      return other instanceof Sequence && PythonValue.equal(this, other);
    }
  }

  /** A dict, in the order of insertion. */
  record Dict(Map<Object, Object> items) {
    Dict() {
      this(new LinkedHashMap<>());
    }
  }

  /** Jinja2's {@code namespace()}: the one thing whose attributes a template can set. */
  static final class Namespace {
    final Map<String, Object> attributes = new LinkedHashMap<>();
  }

  /** Positional and named arguments of a call. */
  record Arguments(List<Object> positional, Map<String, Object> named) {
    static final Arguments NONE = new Arguments(List.of(), Map.of());

    /** The argument at the position or of the name, or the fallback. */
    Object or(int position, String name, Object fallback) {
      if (position < positional.size()) {
        return positional.get(position);
      }
      return named.getOrDefault(name, fallback);
    }

    Object required(int position, String name) {
      Object value = or(position, name, MISSING);
      if (value == MISSING) {
        throw TemplateException.type("missing a required argument: '" + name + "'");
      }
      return value;
    }

    long integer(int position, String name, long fallback) {
      Object value = or(position, name, fallback);
      return value == None.NONE ? fallback : PythonValue.integer(value);
    }

    boolean flag(int position, String name, boolean fallback) {
      return truth(or(position, name, fallback));
    }

    Arguments from(int position) {
      return new Arguments(
          position >= positional.size()
              ? List.of()
              : positional.subList(position, positional.size()),
          named);
    }

    private static final Object MISSING = new Object();
  }

  /** What a template can call. */
  interface Callable {
    Object call(Arguments arguments);
  }

  /** The {@code loop} variable. */
  static final class Loop {
    final List<Object> items;
    final int depth;
    int index;
    Object lastChanged = None.NONE;
    final Callable recurse;

    Loop(List<Object> items, int depth, Callable recurse) {
      this.items = items;
      this.depth = depth;
      this.recurse = recurse;
    }
  }

  private static final int DEPTH_MAX = 200;

  private PythonValue() {}

  // --- What a value is ---

  static String typeName(Object value) {
    return switch (value) {
      case None none -> "NoneType";
      case Undefined undefined -> "Undefined";
      case Boolean b -> "bool";
      case Long l -> "int";
      case BigInteger b -> "int";
      case Double d -> "float";
      case MarkedText t -> "str";
      case Sequence s -> s.tuple() ? "tuple" : "list";
      case Dict d -> "dict";
      case Namespace n -> "Namespace";
      case Loop l -> "LoopContext";
      default -> "function";
    };
  }

  static boolean truth(Object value) {
    return switch (value) {
      case None none -> false;
      case Undefined undefined -> false;
      case Boolean b -> b;
      case Long l -> l != 0;
      case BigInteger b -> b.signum() != 0;
      case Double d -> d != 0;
      case MarkedText t -> !t.isEmpty();
      case Sequence s -> !s.items().isEmpty();
      case Dict d -> !d.items().isEmpty();
      default -> true;
    };
  }

  static boolean isNumber(Object value) {
    return value instanceof Long
        || value instanceof Double
        || value instanceof Boolean
        || value instanceof BigInteger;
  }

  static long integer(Object value) {
    return switch (value) {
      case Long l -> l;
      case Boolean b -> b ? 1 : 0;
      case Undefined undefined -> throw undefined.error();
      default ->
          throw TemplateException.type(
              "'" + typeName(value) + "' object cannot be interpreted as an integer");
    };
  }

  private static double real(Object value) {
    return switch (value) {
      case Long l -> l;
      case Boolean b -> b ? 1 : 0;
      case BigInteger b -> b.doubleValue();
      case Double d -> d;
      default -> throw new IllegalStateException("no number: " + typeName(value));
    };
  }

  static long length(Object value) {
    return switch (value) {
      case MarkedText t -> t.value().codePointCount(0, t.length());
      case Sequence s -> s.items().size();
      case Dict d -> d.items().size();
      case Undefined undefined -> 0;
      case Loop loop -> loop.items.size();
      default ->
          throw TemplateException.type("object of type '" + typeName(value) + "' has no len()");
    };
  }

  /** The elements that iterating over a value yields. */
  static List<Object> elements(Object value) {
    return switch (value) {
      case Sequence s -> s.items();
      case Dict d -> new ArrayList<>(d.items().keySet());
      case MarkedText t -> PythonText.characters(t);
      case Undefined undefined -> List.of();
      default -> throw TemplateException.type("'" + typeName(value) + "' object is not iterable");
    };
  }

  /** The value as a dict's key. */
  static Object key(Object value) {
    return switch (value) {
      case Boolean b -> b ? 1L : 0L;
      case Double d when d == Math.rint(d) && Math.abs(d) < 1e15 -> (Object) d.longValue();
      case Dict d -> throw TemplateException.type("unhashable type: 'dict'");
      case Sequence s when !s.tuple() -> throw TemplateException.type("unhashable type: 'list'");
      default -> value;
    };
  }

  // --- Comparison ---

  static boolean equal(Object left, Object right) {
    return equal(left, right, 0);
  }

  private static boolean equal(Object left, Object right, int depth) {
    if (depth > DEPTH_MAX) {
      throw TemplateException.limit("depth");
    }
    if (isNumber(left) && isNumber(right)) {
      return isReal(left, right) ? real(left) == real(right) : big(left).equals(big(right));
    }
    if (left instanceof Undefined && right instanceof Undefined) {
      return true;
    }
    if (left instanceof Sequence a && right instanceof Sequence b) {
      if (a.tuple() != b.tuple() || a.items().size() != b.items().size()) {
        return false;
      }
      for (int i = 0; i < a.items().size(); i++) {
        if (!equal(a.items().get(i), b.items().get(i), depth + 1)) {
          return false;
        }
      }
      return true;
    }
    if (left instanceof Dict a && right instanceof Dict b) {
      if (a.items().size() != b.items().size()) {
        return false;
      }
      for (Map.Entry<Object, Object> entry : a.items().entrySet()) {
        Object other = b.items().get(entry.getKey());
        if (other == null || !equal(entry.getValue(), other, depth + 1)) {
          return false;
        }
      }
      return true;
    }
    return left.equals(right);
  }

  private static boolean isReal(Object left, Object right) {
    return left instanceof Double || right instanceof Double;
  }

  private static BigInteger big(Object value) {
    return value instanceof BigInteger b ? b : BigInteger.valueOf(integer(value));
  }

  /** Compares for order; {@code operator} is for the message. */
  static int compare(Object left, Object right, String operator) {
    if (isNumber(left) && isNumber(right)) {
      return isReal(left, right)
          ? Double.compare(real(left), real(right))
          : big(left).compareTo(big(right));
    }
    if (left instanceof MarkedText a && right instanceof MarkedText b) {
      return PythonText.compare(a.value(), b.value());
    }
    if (left instanceof Sequence a && right instanceof Sequence b && a.tuple() == b.tuple()) {
      int common = Math.min(a.items().size(), b.items().size());
      for (int i = 0; i < common; i++) {
        if (!equal(a.items().get(i), b.items().get(i))) {
          return compare(a.items().get(i), b.items().get(i), operator);
        }
      }
      return Integer.compare(a.items().size(), b.items().size());
    }
    raiseIfUndefined(left, right);
    throw TemplateException.type(
        "'"
            + operator
            + "' not supported between instances of '"
            + typeName(left)
            + "' and '"
            + typeName(right)
            + "'");
  }

  static boolean contains(Object container, Object value) {
    return switch (container) {
      case MarkedText text -> {
        if (value instanceof MarkedText part) {
          yield text.value().contains(part.value());
        }
        raiseIfUndefined(value, value);
        throw TemplateException.type(
            "'in <string>' requires string as left operand, not " + typeName(value));
      }
      case Dict dict -> dict.items().containsKey(key(value));
      case Sequence sequence -> {
        for (Object item : sequence.items()) {
          if (equal(item, value)) {
            yield true;
          }
        }
        yield false;
      }
      case Undefined undefined -> false;
      default ->
          throw TemplateException.type(
              "argument of type '" + typeName(container) + "' is not iterable");
    };
  }

  private static void raiseIfUndefined(Object left, Object right) {
    if (left instanceof Undefined undefined) {
      throw undefined.error();
    }
    if (right instanceof Undefined undefined) {
      throw undefined.error();
    }
  }

  // --- Arithmetic ---

  static Object binary(String operator, Object left, Object right, JinjaBudget budget) {
    raiseIfUndefined(left, right);
    if (isNumber(left) && isNumber(right)) {
      return arithmetic(operator, left, right);
    }
    switch (operator) {
      case "+" -> {
        if (left instanceof MarkedText a && right instanceof MarkedText b) {
          return new MarkedText.Builder(budget).append(a).append(b).build();
        }
        if (left instanceof MarkedText) {
          throw TemplateException.type(
              "can only concatenate str (not \"" + typeName(right) + "\") to str");
        }
        if (left instanceof Sequence a && right instanceof Sequence b && a.tuple() == b.tuple()) {
          budget.steps(a.items().size() + b.items().size());
          List<Object> items = new ArrayList<>(a.items());
          items.addAll(b.items());
          return new Sequence(items, a.tuple());
        }
        if (left instanceof Sequence a) {
          String type = typeName(a);
          throw TemplateException.type(
              "can only concatenate " + type + " (not \"" + typeName(right) + "\") to " + type);
        }
      }
      case "*" -> {
        if (right instanceof Long || right instanceof Boolean) {
          if (left instanceof MarkedText || left instanceof Sequence) {
            return repeat(left, integer(right), budget);
          }
        } else if ((left instanceof Long || left instanceof Boolean)
            && (right instanceof MarkedText || right instanceof Sequence)) {
          return repeat(right, integer(left), budget);
        }
      }
      case "%" -> {
        if (left instanceof MarkedText format) {
          Sequence arguments =
              right instanceof Sequence sequence && sequence.tuple()
                  ? sequence
                  : Sequence.tuple(right);
          return PythonFormat.percent(format, arguments.items(), budget);
        }
      }
      default -> {}
    }
    throw TemplateException.type(
        "unsupported operand type(s) for "
            + operator
            + (operator.equals("**") ? " or pow()" : "")
            + ": '"
            + typeName(left)
            + "' and '"
            + typeName(right)
            + "'");
  }

  private static Object repeat(Object value, long times, JinjaBudget budget) {
    if (value instanceof MarkedText text) {
      MarkedText.Builder builder = new MarkedText.Builder(budget);
      for (long i = 0; i < times && !text.isEmpty(); i++) {
        builder.append(text);
      }
      return builder.build();
    }
    Sequence sequence = (Sequence) value;
    List<Object> items = new ArrayList<>();
    for (long i = 0; i < times && !sequence.items().isEmpty(); i++) {
      budget.steps(sequence.items().size());
      items.addAll(sequence.items());
    }
    return new Sequence(items, sequence.tuple());
  }

  private static Object arithmetic(String operator, Object left, Object right) {
    if (left instanceof BigInteger || right instanceof BigInteger) {
      throw new TemplateException("OverflowError", "integer too large");
    }
    boolean reals = left instanceof Double || right instanceof Double;
    try {
      return switch (operator) {
        case "+" ->
            reals
                ? (Object) (real(left) + real(right))
                : (Object) Math.addExact(integer(left), integer(right));
        case "-" ->
            reals
                ? (Object) (real(left) - real(right))
                : (Object) Math.subtractExact(integer(left), integer(right));
        case "*" ->
            reals
                ? (Object) (real(left) * real(right))
                : (Object) Math.multiplyExact(integer(left), integer(right));
        case "/" -> {
          if (real(right) == 0) {
            throw new TemplateException("ZeroDivisionError", "division by zero");
          }
          yield real(left) / real(right);
        }
        case "//" -> {
          if (real(right) == 0) {
            throw new TemplateException(
                "ZeroDivisionError",
                reals ? "float floor division by zero" : "integer division or modulo by zero");
          }
          yield reals
              ? (Object) Math.floor(real(left) / real(right))
              : (Object) Math.floorDiv(integer(left), integer(right));
        }
        case "%" -> {
          if (real(right) == 0) {
            throw new TemplateException(
                "ZeroDivisionError", reals ? "float modulo" : "integer modulo by zero");
          }
          if (!reals) {
            yield (Object) Math.floorMod(integer(left), integer(right));
          }
          double remainder = real(left) % real(right);
          yield (Object)
              (remainder != 0 && (remainder < 0) != (real(right) < 0)
                  ? remainder + real(right)
                  : remainder);
        }
        case "**" -> {
          if (reals || integer(right) < 0) {
            yield (Object) Math.pow(real(left), real(right));
          }
          if (integer(right) > 63 && Math.abs(integer(left)) > 1) {
            throw new ArithmeticException();
          }
          long power = 1;
          long exponent =
              Math.abs(integer(left)) > 1
                  ? integer(right)
                  : integer(right) % 2 == 0 && integer(right) > 0 ? 2 : Math.min(integer(right), 1);
          for (long i = 0; i < exponent; i++) {
            power = Math.multiplyExact(power, integer(left));
          }
          yield (Object) power;
        }
        default -> throw new IllegalStateException(operator);
      };
    } catch (ArithmeticException e) {
      throw new TemplateException("OverflowError", "integer too large");
    }
  }

  static Object negate(Object value) {
    return switch (value) {
      case Long l -> (Object) (-l);
      case Boolean b -> (Object) (b ? -1L : 0L);
      case Double d -> (Object) (-d);
      case Undefined undefined -> throw undefined.error();
      default ->
          throw TemplateException.type("bad operand type for unary -: '" + typeName(value) + "'");
    };
  }

  // --- Subscripts ---

  /** {@code value[index]}, or null if there is no such element. */
  static @org.jspecify.annotations.Nullable Object element(Object value, Object index) {
    return switch (value) {
      case Dict dict -> dict.items().get(key(index));
      case Sequence sequence when index instanceof Long || index instanceof Boolean -> {
        long at = integer(index);
        int size = sequence.items().size();
        at = at < 0 ? at + size : at;
        yield at >= 0 && at < size ? sequence.items().get((int) at) : null;
      }
      case MarkedText text when index instanceof Long || index instanceof Boolean -> {
        long at = integer(index);
        long size = length(text);
        at = at < 0 ? at + size : at;
        if (at < 0 || at >= size) {
          yield null;
        }
        int from = text.value().offsetByCodePoints(0, (int) at);
        yield text.substring(from, text.value().offsetByCodePoints(from, 1));
      }
      default -> null;
    };
  }

  static Object slice(Object value, Object start, Object stop, Object step, JinjaBudget budget) {
    if (value instanceof Undefined undefined) {
      return undefined;
    }
    if (!(value instanceof MarkedText) && !(value instanceof Sequence)) {
      throw TemplateException.type("'" + typeName(value) + "' object is not subscriptable");
    }
    long by = step == None.NONE ? 1 : integer(step);
    if (by == 0) {
      throw new TemplateException("ValueError", "slice step cannot be zero");
    }
    long size = length(value);
    long low = by > 0 ? 0 : -1;
    long high = by > 0 ? size : size - 1;
    long from = start == None.NONE ? (by > 0 ? low : high) : clamp(integer(start), size, low, high);
    long to = stop == None.NONE ? (by > 0 ? high : low) : clamp(integer(stop), size, low, high);
    if (value instanceof MarkedText text && by == 1) {
      int first = text.value().offsetByCodePoints(0, (int) from);
      MarkedText part =
          from >= to
              ? MarkedText.EMPTY
              : text.substring(first, text.value().offsetByCodePoints(first, (int) (to - from)));
      budget.characters(part.length());
      return part;
    }
    List<Object> all = elements(value);
    budget.steps(all.size());
    List<Object> picked = new ArrayList<>();
    for (long i = from; by > 0 ? i < to : i > to; i += by) {
      picked.add(all.get((int) i));
    }
    if (value instanceof Sequence sequence) {
      return new Sequence(picked, sequence.tuple());
    }
    MarkedText.Builder builder = new MarkedText.Builder(budget);
    picked.forEach(character -> builder.append((MarkedText) character));
    return builder.build();
  }

  private static long clamp(long index, long size, long low, long high) {
    return Math.clamp(index < 0 ? index + size : index, low, high);
  }

  // --- From Java ---

  /**
   * A value from outside; strings in it are a user's.
   *
   * @throws TemplateException if it holds something that has no counterpart
   */
  static Object fromJava(@org.jspecify.annotations.Nullable Object value) {
    return switch (value) {
      case null -> None.NONE;
      case String text -> MarkedText.fromUser(text);
      case MarkedText text -> text;
      case Boolean flag -> flag;
      case Integer number -> (Object) number.longValue();
      case Short number -> (Object) number.longValue();
      case Byte number -> (Object) number.longValue();
      case Long number -> number;
      case Float number -> (Object) number.doubleValue();
      case Double number -> number;
      case BigInteger number ->
          number.bitLength() < 64 ? (Object) number.longValueExact() : (Object) number;
      case java.math.BigDecimal number -> (Object) number.doubleValue();
      case java.util.Optional<?> optional -> fromJava(optional.orElse(null));
      case Map<?, ?> map -> {
        Dict dict = new Dict();
        map.forEach((k, v) -> dict.items().put(key(fromJava(k)), fromJava(v)));
        yield dict;
      }
      case Iterable<?> iterable -> {
        List<Object> items = new ArrayList<>();
        iterable.forEach(item -> items.add(fromJava(item)));
        yield Sequence.list(items);
      }
      default ->
          throw TemplateException.type(
              "a template cannot take a " + value.getClass().getSimpleName());
    };
  }
}
