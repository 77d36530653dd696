package dev.flotilla.text;

import dev.flotilla.text.PythonValue.Arguments;
import dev.flotilla.text.PythonValue.Callable;
import dev.flotilla.text.PythonValue.Dict;
import dev.flotilla.text.PythonValue.None;
import dev.flotilla.text.PythonValue.Sequence;
import dev.flotilla.text.PythonValue.Undefined;
import java.math.BigInteger;
import java.util.Locale;

/** What may stand after {@code is}. */
final class JinjaTests {

  private JinjaTests() {}

  static boolean test(String name, Object value, Arguments arguments) {
    return switch (name) {
      case "defined" -> !(value instanceof Undefined);
      case "undefined" -> value instanceof Undefined;
      case "none" -> value == None.NONE;
      case "boolean" -> value instanceof Boolean;
      case "true" -> value.equals(true);
      case "false" -> value.equals(false);
      case "integer" -> value instanceof Long || value instanceof BigInteger;
      case "float" -> value instanceof Double;
      case "number" -> PythonValue.isNumber(value);
      case "string" -> value instanceof MarkedText;
      case "mapping" -> value instanceof Dict;
      case "sequence" ->
          value instanceof Sequence
              || value instanceof Dict
              || value instanceof MarkedText
              || value instanceof Undefined;
      case "iterable" ->
          value instanceof Sequence
              || value instanceof Dict
              || value instanceof MarkedText
              || value instanceof Undefined;
      case "callable" -> value instanceof Callable;
      case "sameas" -> {
        // Equal values of one type stand for one object: which it is cannot be told otherwise.
        Object other = arguments.required(0, "other");
        yield PythonValue.typeName(value).equals(PythonValue.typeName(other))
            && PythonValue.equal(value, other);
      }
      case "escaped" -> false;
      case "odd" -> Math.floorMod(PythonValue.integer(value), 2L) == 1;
      case "even" -> Math.floorMod(PythonValue.integer(value), 2L) == 0;
      case "divisibleby" ->
          PythonValue.equal(
              PythonValue.binary("%", value, arguments.required(0, "num"), new JinjaBudget()), 0L);
      case "lower" ->
          value instanceof MarkedText text
              && text.value().equals(text.value().toLowerCase(Locale.ROOT))
              && !text.value().equals(text.value().toUpperCase(Locale.ROOT));
      case "upper" ->
          value instanceof MarkedText text
              && text.value().equals(text.value().toUpperCase(Locale.ROOT))
              && !text.value().equals(text.value().toLowerCase(Locale.ROOT));
      case "in" -> PythonValue.contains(arguments.required(0, "seq"), value);
      case "eq", "equalto", "==" -> PythonValue.equal(value, arguments.required(0, "other"));
      case "ne", "!=" -> !PythonValue.equal(value, arguments.required(0, "other"));
      case "lt", "lessthan", "<" -> compare(value, arguments, "<") < 0;
      case "le", "<=" -> compare(value, arguments, "<=") <= 0;
      case "gt", "greaterthan", ">" -> compare(value, arguments, ">") > 0;
      case "ge", ">=" -> compare(value, arguments, ">=") >= 0;
      case "filter" -> JinjaFilters.NAMES.contains(PythonMethods.string(value).value());
      case "test" ->
          throw new TemplateException("TemplateRuntimeError", "the test 'test' is not supported");
      default ->
          throw new TemplateException(
              "TemplateRuntimeError", "No test named '" + name + "' found.");
    };
  }

  private static int compare(Object value, Arguments arguments, String operator) {
    return PythonValue.compare(value, arguments.required(0, "other"), operator);
  }
}
