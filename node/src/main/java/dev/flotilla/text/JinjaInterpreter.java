package dev.flotilla.text;

import dev.flotilla.text.JinjaNode.*;
import dev.flotilla.text.PythonValue.Arguments;
import dev.flotilla.text.PythonValue.Callable;
import dev.flotilla.text.PythonValue.Dict;
import dev.flotilla.text.PythonValue.Loop;
import dev.flotilla.text.PythonValue.Namespace;
import dev.flotilla.text.PythonValue.None;
import dev.flotilla.text.PythonValue.Sequence;
import dev.flotilla.text.PythonValue.Undefined;
import java.time.ZonedDateTime;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.jspecify.annotations.Nullable;

/**
 * Renders one parsed template once. Scopes are Jinja2's: loops, macros and blocks that capture have
 * their own, {@code if} has not; what a loop's body sets is gone in the next round.
 */
final class JinjaInterpreter {

  /** Python's range in Jinja2's sandbox. */
  private static final long RANGE_MAX = 100_000;

  private enum Outcome {
    NEXT,
    BREAK,
    CONTINUE
  }

  private static final class Scope {
    final @Nullable Scope parent;
    final Map<String, Object> variables = new HashMap<>(8);

    Scope(@Nullable Scope parent) {
      this.parent = parent;
    }

    @Nullable Object find(String name) {
      for (Scope scope = this; scope != null; scope = scope.parent) {
        Object value = scope.variables.get(name);
        if (value != null) {
          return value;
        }
      }
      return null;
    }
  }

  /** The variable that {@link Rendered} reads; no template can spell it. */
  private static final String RENDERED = "";

  private final JinjaBudget budget = new JinjaBudget();
  private final JinjaFilters filters = new JinjaFilters(this, budget);
  private final Scope globals = new Scope(null);

  private JinjaInterpreter(Map<String, Object> variables, ZonedDateTime now) {
    globals.variables.putAll(functions(now));
    globals.variables.putAll(variables);
  }

  /**
   * @throws TemplateException if the template raises an error or exceeds its budget
   */
  static MarkedText render(
      List<Statement> template, Map<String, Object> variables, ZonedDateTime now) {
    JinjaInterpreter interpreter = new JinjaInterpreter(variables, now);
    MarkedText.Builder out = new MarkedText.Builder(interpreter.budget);
    try {
      interpreter.execute(template, new Scope(interpreter.globals), out);
    } catch (StackOverflowError e) {
      // The bound on depth leaves room, but how much a frame takes is the JVM's affair.
      throw TemplateException.limit("depth");
    }
    return out.build();
  }

  // --- Functions ---

  private Map<String, Callable> functions(ZonedDateTime now) {
    return Map.of(
        "range", this::range,
        "namespace",
            arguments -> {
              Namespace namespace = new Namespace();
              for (Object source : arguments.positional()) {
                if (source instanceof Dict dict) {
                  dict.items()
                      .forEach((key, value) -> namespace.attributes.put(key.toString(), value));
                }
              }
              namespace.attributes.putAll(arguments.named());
              return namespace;
            },
        "dict",
            arguments -> {
              Dict dict = new Dict();
              if (arguments.or(0, "", None.NONE) instanceof Dict source) {
                dict.items().putAll(source.items());
              }
              arguments.named().forEach((k, v) -> dict.items().put(MarkedText.trusted(k), v));
              return dict;
            },
        "cycler",
            arguments -> {
              Namespace state = new Namespace();
              List<Object> items = arguments.positional();
              if (items.isEmpty()) {
                throw TemplateException.type("at least one item has to be provided");
              }
              int[] position = {0};
              state.attributes.put("current", items.getFirst());
              state.attributes.put(
                  "next",
                  (Callable)
                      ignored -> {
                        Object item = items.get(position[0]);
                        position[0] = (position[0] + 1) % items.size();
                        state.attributes.put("current", items.get(position[0]));
                        return item;
                      });
              state.attributes.put(
                  "reset",
                  (Callable)
                      ignored -> {
                        position[0] = 0;
                        state.attributes.put("current", items.getFirst());
                        return None.NONE;
                      });
              return state;
            },
        "joiner",
            arguments -> {
              Object separator = arguments.or(0, "sep", MarkedText.trusted(", "));
              boolean[] used = {false};
              return (Callable)
                  ignored -> {
                    Object result = used[0] ? separator : MarkedText.EMPTY;
                    used[0] = true;
                    return result;
                  };
            },
        "raise_exception",
            arguments -> {
              throw new TemplateException(
                  "TemplateError",
                  PythonText.str(arguments.required(0, "message"), budget).value());
            },
        "strftime_now",
            arguments ->
                MarkedText.trusted(
                    Strftime.format(
                        PythonMethods.string(arguments.required(0, "format")).value(), now)));
  }

  private Object range(Arguments arguments) {
    long first = PythonValue.integer(arguments.required(0, "stop"));
    boolean single = arguments.positional().size() < 2;
    long start = single ? 0 : first;
    long stop = single ? first : PythonValue.integer(arguments.positional().get(1));
    long step = arguments.integer(2, "step", 1);
    if (step == 0) {
      throw new TemplateException("ValueError", "range() arg 3 must not be zero");
    }
    double length = Math.ceil(((double) stop - start) / step);
    if (length > RANGE_MAX) {
      throw new TemplateException(
          "OverflowError",
          "Range too big. The sandbox blocks ranges larger than MAX_RANGE (" + RANGE_MAX + ").");
    }
    List<Object> items = new ArrayList<>();
    for (long i = 0; i < length; i++) {
      items.add(start + i * step);
    }
    budget.steps(items.size());
    return Sequence.list(items);
  }

  // --- Statements ---

  private Outcome execute(List<Statement> body, Scope scope, MarkedText.Builder out) {
    budget.enter();
    for (Statement statement : body) {
      Outcome outcome = execute(statement, scope, out);
      if (outcome != Outcome.NEXT) {
        budget.leave();
        return outcome;
      }
    }
    budget.leave();
    return Outcome.NEXT;
  }

  private Outcome execute(Statement statement, Scope scope, MarkedText.Builder out) {
    budget.steps(1);
    switch (statement) {
      case Data data -> out.append(data.text());
      case Print print -> out.append(PythonText.str(evaluate(print.value(), scope), budget));
      case If branches -> {
        for (Branch branch : branches.branches()) {
          if (PythonValue.truth(evaluate(branch.test(), scope))) {
            return execute(branch.body(), scope, out);
          }
        }
        return execute(branches.otherwise(), scope, out);
      }
      case For loop -> loop(loop, evaluate(loop.iterable(), scope), 0, scope, out);
      case JinjaNode.Set set -> assign(set.target(), evaluate(set.value(), scope), scope);
      case SetBlock set -> assign(set.target(), captured(set.body(), set.filtered(), scope), scope);
      case FilterBlock block ->
          out.append(PythonText.str(captured(block.body(), block.filtered(), scope), budget));
      case Macro macro -> scope.variables.put(macro.name(), callable(macro, scope));
      case CallBlock call -> out.append(PythonText.str(call(call, scope), budget));
      case With with -> {
        Scope inner = new Scope(scope);
        for (Assignment assignment : with.assignments()) {
          assign(assignment.target(), evaluate(assignment.value(), scope), inner);
        }
        return execute(with.body(), inner, out);
      }
      case Break ignored -> {
        return Outcome.BREAK;
      }
      case Continue ignored -> {
        return Outcome.CONTINUE;
      }
    }
    return Outcome.NEXT;
  }

  private Object captured(List<Statement> body, Expression filtered, Scope scope) {
    Scope inner = new Scope(scope);
    MarkedText.Builder out = new MarkedText.Builder(budget);
    execute(body, inner, out);
    inner.variables.put(RENDERED, out.build());
    return evaluate(filtered, inner);
  }

  private void loop(For loop, Object iterable, int depth, Scope scope, MarkedText.Builder out) {
    List<Object> items = PythonValue.elements(iterable);
    if (loop.filter().isPresent()) {
      List<Object> kept = new ArrayList<>();
      for (Object item : items) {
        Scope inner = new Scope(scope);
        assign(loop.target(), item, inner);
        if (PythonValue.truth(evaluate(loop.filter().get(), inner))) {
          kept.add(item);
        }
      }
      items = kept;
    }
    if (items.isEmpty()) {
      execute(loop.otherwise(), new Scope(scope), out);
      return;
    }
    Callable recurse =
        arguments -> {
          if (!loop.recursive()) {
            throw TemplateException.type(
                "The loop must have the 'recursive' marker to be called recursively.");
          }
          budget.enter();
          MarkedText.Builder inner = new MarkedText.Builder(budget);
          loop(loop, arguments.required(0, "iterable"), depth + 1, scope, inner);
          budget.leave();
          return inner.build();
        };
    Loop state = new Loop(items, depth, recurse);
    for (; state.index < items.size(); state.index++) {
      budget.steps(1);
      Scope inner = new Scope(scope);
      inner.variables.put("loop", state);
      assign(loop.target(), items.get(state.index), inner);
      if (execute(loop.body(), inner, out) == Outcome.BREAK) {
        break;
      }
    }
  }

  private void assign(Target target, Object value, Scope scope) {
    switch (target) {
      case Variable variable -> scope.variables.put(variable.name(), value);
      case NamespaceAttribute attribute -> {
        if (!(scope.find(attribute.namespace()) instanceof Namespace namespace)) {
          throw new TemplateException(
              "TemplateRuntimeError", "cannot assign attribute on non-namespace object");
        }
        namespace.attributes.put(attribute.attribute(), value);
      }
      case Unpack unpack -> {
        List<Object> values = PythonValue.elements(value);
        int expected = unpack.targets().size();
        if (values.size() != expected) {
          throw new TemplateException(
              "ValueError",
              values.size() > expected
                  ? "too many values to unpack (expected " + expected + ")"
                  : "not enough values to unpack (expected "
                      + expected
                      + ", got "
                      + values.size()
                      + ")");
        }
        for (int i = 0; i < expected; i++) {
          assign(unpack.targets().get(i), values.get(i), scope);
        }
      }
    }
  }

  // --- Macros ---

  private Callable callable(Macro macro, Scope definition) {
    return arguments -> {
      Scope scope = new Scope(definition);
      bind(macro, arguments, scope);
      MarkedText.Builder out = new MarkedText.Builder(budget);
      execute(macro.body(), scope, out);
      return out.build();
    };
  }

  private void bind(Macro macro, Arguments arguments, Scope scope) {
    Map<String, Object> named = new LinkedHashMap<>(arguments.named());
    int given = arguments.positional().size();
    for (int i = 0; i < macro.parameters().size(); i++) {
      Parameter parameter = macro.parameters().get(i);
      Object value = i < given ? arguments.positional().get(i) : named.remove(parameter.name());
      if (value == null) {
        Optional<Expression> fallback = parameter.fallback();
        value =
            fallback.isPresent()
                ? evaluate(fallback.get(), scope)
                : new Undefined("parameter '" + parameter.name() + "' was not provided");
      }
      scope.variables.put(parameter.name(), value);
    }
    if (macro.names().contains("caller")) {
      Object caller = named.remove("caller");
      scope.variables.put("caller", caller == null ? new Undefined("No caller defined") : caller);
    }
    if (macro.names().contains("kwargs")) {
      Dict rest = new Dict();
      named.forEach((name, value) -> rest.items().put(MarkedText.trusted(name), value));
      scope.variables.put("kwargs", rest);
    } else if (!named.isEmpty()) {
      throw TemplateException.type(
          "macro '"
              + macro.name()
              + "' takes no keyword argument '"
              + named.keySet().iterator().next()
              + "'");
    }
    int extra = Math.min(given, macro.parameters().size());
    if (macro.names().contains("varargs")) {
      scope.variables.put(
          "varargs", new Sequence(arguments.positional().subList(extra, given), true));
    } else if (given > extra) {
      throw TemplateException.type(
          "macro '"
              + macro.name()
              + "' takes not more than "
              + macro.parameters().size()
              + " argument(s)");
    }
  }

  private Object call(CallBlock block, Scope scope) {
    Call call = (Call) block.call();
    Arguments arguments = arguments(call.arguments(), scope);
    Map<String, Object> named = new LinkedHashMap<>(arguments.named());
    named.put("caller", callable(block.caller(), scope));
    return call(evaluate(call.callee(), scope), new Arguments(arguments.positional(), named));
  }

  // --- Expressions ---

  private Object evaluate(Expression expression, Scope scope) {
    budget.steps(1);
    budget.enter();
    Object value =
        switch (expression) {
          case Constant constant -> constant.value();
          case Name name -> variable(name.name(), scope);
          case Rendered ignored -> variable(RENDERED, scope);
          case SequenceLiteral literal -> {
            List<Object> items = new ArrayList<>(literal.items().size());
            for (Expression item : literal.items()) {
              items.add(evaluate(item, scope));
            }
            yield new Sequence(items, literal.tuple());
          }
          case DictLiteral literal -> {
            Dict dict = new Dict();
            for (Entry entry : literal.entries()) {
              dict.items()
                  .put(
                      PythonValue.key(evaluate(entry.key(), scope)),
                      evaluate(entry.value(), scope));
            }
            yield dict;
          }
          case Unary unary -> {
            Object operand = evaluate(unary.operand(), scope);
            yield unary.operator().equals("-")
                ? PythonValue.negate(operand)
                : PythonValue.binary("+", 0L, operand, budget);
          }
          case Binary binary ->
              PythonValue.binary(
                  binary.operator(),
                  evaluate(binary.left(), scope),
                  evaluate(binary.right(), scope),
                  budget);
          case And and -> {
            Object left = evaluate(and.left(), scope);
            yield PythonValue.truth(left) ? evaluate(and.right(), scope) : left;
          }
          case Or or -> {
            Object left = evaluate(or.left(), scope);
            yield PythonValue.truth(left) ? left : evaluate(or.right(), scope);
          }
          case Not not -> !PythonValue.truth(evaluate(not.operand(), scope));
          case Compare compare -> compare(compare, scope);
          case Concat concat -> {
            MarkedText.Builder text = new MarkedText.Builder(budget);
            for (Expression part : concat.parts()) {
              text.append(PythonText.str(evaluate(part, scope), budget));
            }
            yield text.build();
          }
          case Conditional conditional -> {
            if (PythonValue.truth(evaluate(conditional.test(), scope))) {
              yield evaluate(conditional.then(), scope);
            }
            yield conditional.otherwise().isPresent()
                ? evaluate(conditional.otherwise().get(), scope)
                : new Undefined(
                    "the inline if-expression evaluated to false and no else section was"
                        + " defined.");
          }
          case Attribute attribute ->
              attribute(evaluate(attribute.target(), scope), attribute.name());
          case Subscript subscript ->
              item(evaluate(subscript.target(), scope), evaluate(subscript.index(), scope));
          case Slice slice ->
              PythonValue.slice(
                  evaluate(slice.target(), scope),
                  optional(slice.start(), scope),
                  optional(slice.stop(), scope),
                  optional(slice.step(), scope),
                  budget);
          case Call call ->
              call(evaluate(call.callee(), scope), arguments(call.arguments(), scope));
          case Filter filter ->
              filters.apply(
                  filter.name(),
                  evaluate(filter.target(), scope),
                  arguments(filter.arguments(), scope));
          case Test test ->
              JinjaTests.test(
                  test.name(), evaluate(test.target(), scope), arguments(test.arguments(), scope));
        };
    budget.leave();
    return value;
  }

  private Object optional(Optional<Expression> expression, Scope scope) {
    return expression.isPresent() ? evaluate(expression.get(), scope) : None.NONE;
  }

  private Object variable(String name, Scope scope) {
    Object value = scope.find(name);
    return value != null ? value : new Undefined("'" + name + "' is undefined");
  }

  private Object compare(Compare compare, Scope scope) {
    Object left = evaluate(compare.first(), scope);
    for (Comparison comparison : compare.rest()) {
      Object right = evaluate(comparison.operand(), scope);
      String operator = comparison.operator();
      if (right instanceof Sequence sequence) {
        budget.steps(sequence.items().size());
      } else if (right instanceof MarkedText text) {
        budget.characters(text.length());
      }
      boolean holds =
          switch (operator) {
            case "==" -> PythonValue.equal(left, right);
            case "!=" -> !PythonValue.equal(left, right);
            case "in" -> PythonValue.contains(right, left);
            case "not in" -> !PythonValue.contains(right, left);
            case "<" -> PythonValue.compare(left, right, operator) < 0;
            case "<=" -> PythonValue.compare(left, right, operator) <= 0;
            case ">" -> PythonValue.compare(left, right, operator) > 0;
            case ">=" -> PythonValue.compare(left, right, operator) >= 0;
            default -> throw new IllegalStateException(operator);
          };
      if (!holds) {
        return false;
      }
      left = right;
    }
    return true;
  }

  private Arguments arguments(CallArguments arguments, Scope scope) {
    if (arguments.equals(CallArguments.NONE)) {
      return Arguments.NONE;
    }
    List<Object> positional = new ArrayList<>(arguments.positional().size());
    for (Expression argument : arguments.positional()) {
      positional.add(evaluate(argument, scope));
    }
    if (arguments.spread().isPresent()) {
      List<Object> spread = PythonValue.elements(evaluate(arguments.spread().get(), scope));
      budget.steps(spread.size());
      positional.addAll(spread);
    }
    Map<String, Object> named = new LinkedHashMap<>();
    for (Keyword keyword : arguments.named()) {
      named.put(keyword.name(), evaluate(keyword.value(), scope));
    }
    if (arguments.spreadNamed().isPresent()
        && evaluate(arguments.spreadNamed().get(), scope) instanceof Dict dict) {
      dict.items().forEach((key, value) -> named.put(key.toString(), value));
    }
    return new Arguments(positional, named);
  }

  private Object call(Object callee, Arguments arguments) {
    return switch (callee) {
      case Callable callable -> callable.call(arguments);
      case Loop loop -> loop.recurse.call(arguments);
      case Undefined undefined -> throw undefined.error();
      default ->
          throw TemplateException.type(
              "'" + PythonValue.typeName(callee) + "' object is not callable");
    };
  }

  /** {@code value.name}: a method or property first, then an element. */
  Object attribute(Object value, String name) {
    if (value instanceof Undefined undefined) {
      throw undefined.error();
    }
    if (PythonMethods.isUnsafe(value, name)) {
      return unsafe(value, name);
    }
    if (PythonMethods.has(value, name)) {
      return method(value, name);
    }
    Object found =
        switch (value) {
          case Namespace namespace -> namespace.attributes.get(name);
          case Loop loop -> property(loop, name);
          default -> PythonValue.element(value, MarkedText.trusted(name));
        };
    return found != null ? found : missing(value, MarkedText.trusted(name));
  }

  /** {@code value[key]}: an element first, then a method or property. */
  Object item(Object value, Object key) {
    if (value instanceof Undefined undefined) {
      throw undefined.error();
    }
    Object found = PythonValue.element(value, key);
    if (found != null) {
      return found;
    }
    if (key instanceof MarkedText name && !(value instanceof Namespace)) {
      if (PythonMethods.isUnsafe(value, name.value())) {
        return unsafe(value, name.value());
      }
      if (PythonMethods.has(value, name.value())) {
        return method(value, name.value());
      }
    }
    return missing(value, key);
  }

  private Callable method(Object value, String name) {
    return arguments -> PythonMethods.call(value, name, arguments, budget);
  }

  private static Undefined unsafe(Object value, String name) {
    return new Undefined(
        "access to attribute '"
            + name
            + "' of '"
            + PythonValue.typeName(value)
            + "' object is unsafe.",
        "SecurityError");
  }

  private Undefined missing(Object value, Object key) {
    String type =
        value == None.NONE
            ? "None"
            : (value instanceof Namespace ? "jinja2.utils." : "")
                + PythonValue.typeName(value)
                + " object";
    return new Undefined(
        key instanceof MarkedText name
            ? "'" + type + "' has no attribute '" + name + "'"
            : type + " has no element " + PythonText.repr(key, budget));
  }

  private @Nullable Object property(Loop loop, String name) {
    int size = loop.items.size();
    return switch (name) {
      case "index" -> (long) loop.index + 1;
      case "index0" -> (long) loop.index;
      case "revindex" -> (long) size - loop.index;
      case "revindex0" -> (long) size - loop.index - 1;
      case "first" -> loop.index == 0;
      case "last" -> loop.index == size - 1;
      case "length" -> (long) size;
      case "depth" -> (long) loop.depth + 1;
      case "depth0" -> (long) loop.depth;
      case "previtem" ->
          loop.index > 0
              ? loop.items.get(loop.index - 1)
              : new Undefined("there is no previous item");
      case "nextitem" ->
          loop.index + 1 < size
              ? loop.items.get(loop.index + 1)
              : new Undefined("there is no next item");
      case "cycle" ->
          (Callable)
              arguments -> {
                if (arguments.positional().isEmpty()) {
                  throw TemplateException.type("no items for cycling given");
                }
                return arguments.positional().get(loop.index % arguments.positional().size());
              };
      case "changed" ->
          (Callable)
              arguments -> {
                Sequence now = new Sequence(arguments.positional(), true);
                boolean changed = !PythonValue.equal(loop.lastChanged, now);
                loop.lastChanged = now;
                return changed;
              };
      default -> null;
    };
  }
}
