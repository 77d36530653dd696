package dev.flotilla.text;

import dev.flotilla.text.JinjaLexer.Kind;
import dev.flotilla.text.JinjaLexer.Token;
import dev.flotilla.text.JinjaNode.*;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/** Parses Jinja2's statements and expressions by recursive descent, with Jinja2's precedences. */
final class JinjaParser {

  private static final int DEPTH_MAX = 200;
  private static final java.util.Set<String> COMPARISONS =
      java.util.Set.of("==", "!=", "<", "<=", ">", ">=");

  private final List<Token> tokens;
  private int position;
  private int depth;

  /** The names read in each macro being parsed, innermost first. */
  private final Deque<java.util.Set<String>> macroNames = new ArrayDeque<>();

  private JinjaParser(List<Token> tokens) {
    this.tokens = tokens;
  }

  /**
   * @throws TemplateException if the template is malformed
   */
  static List<Statement> parse(String template) {
    JinjaParser parser = new JinjaParser(JinjaLexer.tokens(template));
    List<Statement> body = parser.statements();
    if (parser.token().kind() != Kind.END) {
      throw parser.unexpected();
    }
    return body;
  }

  // --- Statements ---

  /** Statements up to the end, or to a tag that is not one of a statement's beginning. */
  private List<Statement> statements(String... endings) {
    enter();
    List<Statement> body = new ArrayList<>();
    while (true) {
      Token token = token();
      switch (token.kind()) {
        case DATA -> {
          position++;
          body.add(new Data(MarkedText.trusted(token.text())));
        }
        case VARIABLE_BEGIN -> {
          position++;
          body.add(new Print(tuple()));
          expect(Kind.VARIABLE_END);
        }
        case BLOCK_BEGIN -> {
          Token name = tokens.get(position + 1);
          if (name.kind() == Kind.NAME && List.of(endings).contains(name.text())) {
            depth--;
            return body;
          }
          position++;
          body.add(statement());
        }
        default -> {
          if (endings.length > 0) {
            throw TemplateException.syntax(
                "Unexpected end of template; expected '" + endings[0] + "'", token.line());
          }
          depth--;
          return body;
        }
      }
    }
  }

  /**
   * The body up to one of the endings, whose tag's name is consumed and returned by {@link #last}.
   */
  private List<Statement> block(String... endings) {
    expect(Kind.BLOCK_END);
    List<Statement> body = statements(endings);
    position += 2;
    return body;
  }

  private String last() {
    return tokens.get(position - 1).text();
  }

  private Statement statement() {
    Token tag = expect(Kind.NAME);
    Statement statement =
        switch (tag.text()) {
          case "if" -> ifStatement();
          case "for" -> forStatement();
          case "set" -> setStatement();
          case "macro" -> macro();
          case "call" -> callBlock();
          case "filter" -> {
            Expression filtered = filterChain(new Rendered());
            yield new FilterBlock(filtered, block("endfilter"));
          }
          case "with" -> with();
          // Marks what the assistant wrote, for training; renders like its body.
          case "generation" -> new With(List.of(), block("endgeneration"));
          case "break" -> new Break();
          case "continue" -> new Continue();
          case "print" -> new Print(tuple());
          default ->
              throw TemplateException.syntax(
                  "Encountered unknown tag '" + tag.text() + "'.", tag.line());
        };
    expect(Kind.BLOCK_END);
    return statement;
  }

  private Statement ifStatement() {
    List<Branch> branches = new ArrayList<>();
    List<Statement> otherwise = List.of();
    do {
      Expression test = tuple();
      branches.add(new Branch(test, block("elif", "else", "endif")));
    } while (last().equals("elif"));
    if (last().equals("else")) {
      otherwise = block("endif");
    }
    return new If(branches, otherwise);
  }

  private Statement forStatement() {
    Target target = targets("in");
    if (!takeName("in")) {
      throw unexpected();
    }
    Expression iterable = tupleWithoutCondition();
    Optional<Expression> filter = takeName("if") ? Optional.of(expression()) : Optional.empty();
    boolean recursive = takeName("recursive");
    List<Statement> body = block("else", "endfor");
    List<Statement> otherwise = last().equals("else") ? block("endfor") : List.of();
    return new For(target, iterable, filter, body, otherwise, recursive);
  }

  private Statement setStatement() {
    Target target = targets("");
    if (takeOperator("=")) {
      return new JinjaNode.Set(target, tuple());
    }
    Expression filtered = filterChain(new Rendered());
    return new SetBlock(target, filtered, block("endset"));
  }

  private Statement with() {
    List<Assignment> assignments = new ArrayList<>();
    while (token().kind() != Kind.BLOCK_END) {
      if (!assignments.isEmpty()) {
        expectOperator(",");
      }
      Target target = target();
      expectOperator("=");
      assignments.add(new Assignment(target, expression()));
    }
    return new With(assignments, block("endwith"));
  }

  private Macro macro() {
    String name = expect(Kind.NAME).text();
    macroNames.push(new HashSet<>());
    return finishMacro(name, parameters(), "endmacro");
  }

  private Macro finishMacro(String name, List<Parameter> parameters, String ending) {
    List<Statement> body = block(ending);
    java.util.Set<String> names = macroNames.pop();
    return new Macro(name, parameters, body, names);
  }

  private List<Parameter> parameters() {
    List<Parameter> parameters = new ArrayList<>();
    expectOperator("(");
    while (!takeOperator(")")) {
      if (!parameters.isEmpty()) {
        expectOperator(",");
      }
      String name = expect(Kind.NAME).text();
      parameters.add(
          new Parameter(name, takeOperator("=") ? Optional.of(expression()) : Optional.empty()));
    }
    return parameters;
  }

  private Statement callBlock() {
    macroNames.push(new HashSet<>());
    List<Parameter> parameters = isOperator("(") ? parameters() : List.of();
    Expression call = expression();
    if (!(call instanceof Call)) {
      throw TemplateException.syntax("expected call", token().line());
    }
    return new CallBlock(finishMacro("caller", parameters, "endcall"), call);
  }

  private Target targets(String end) {
    List<Target> targets = new ArrayList<>();
    targets.add(target());
    boolean tuple = false;
    while (takeOperator(",")) {
      tuple = true;
      if (isOperator("=") || token().is(Kind.NAME, end)) {
        break;
      }
      targets.add(target());
    }
    return tuple ? new Unpack(targets) : targets.getFirst();
  }

  private Target target() {
    if (takeOperator("(")) {
      Target inner = targets("");
      expectOperator(")");
      return inner;
    }
    String name = expect(Kind.NAME).text();
    if (takeOperator(".")) {
      return new NamespaceAttribute(name, expect(Kind.NAME).text());
    }
    return new Variable(name);
  }

  // --- Expressions, loosest first ---

  /** One expression, or several with commas between as a tuple. */
  private Expression tuple() {
    return tuple(true);
  }

  private Expression tupleWithoutCondition() {
    return tuple(false);
  }

  private Expression tuple(boolean withCondition) {
    Expression first = withCondition ? expression() : or();
    if (!isOperator(",")) {
      return first;
    }
    List<Expression> items = new ArrayList<>();
    items.add(first);
    while (takeOperator(",")) {
      Kind kind = token().kind();
      if (kind == Kind.VARIABLE_END || kind == Kind.BLOCK_END || isOperator(")")) {
        break;
      }
      items.add(withCondition ? expression() : or());
    }
    return new SequenceLiteral(items, true);
  }

  private Expression expression() {
    enter();
    Expression value = or();
    while (takeName("if")) {
      Expression test = or();
      Optional<Expression> otherwise =
          takeName("else") ? Optional.of(expression()) : Optional.empty();
      value = new Conditional(test, value, otherwise);
    }
    depth--;
    return value;
  }

  private Expression or() {
    Expression left = and();
    while (takeName("or")) {
      left = new Or(left, and());
    }
    return left;
  }

  private Expression and() {
    Expression left = not();
    while (takeName("and")) {
      left = new And(left, not());
    }
    return left;
  }

  private Expression not() {
    if (takeName("not")) {
      enter();
      Expression operand = not();
      depth--;
      return new Not(operand);
    }
    return compare();
  }

  private Expression compare() {
    Expression first = sum();
    List<Comparison> rest = new ArrayList<>();
    while (true) {
      Token token = token();
      if (token.kind() == Kind.OPERATOR && COMPARISONS.contains(token.text())) {
        position++;
        rest.add(new Comparison(token.text(), sum()));
      } else if (takeName("in")) {
        rest.add(new Comparison("in", sum()));
      } else if (token.is(Kind.NAME, "not") && tokens.get(position + 1).is(Kind.NAME, "in")) {
        position += 2;
        rest.add(new Comparison("not in", sum()));
      } else {
        return rest.isEmpty() ? first : new Compare(first, rest);
      }
    }
  }

  private Expression sum() {
    Expression left = concat();
    while (isOperator("+") || isOperator("-")) {
      String operator = next().text();
      left = new Binary(operator, left, concat());
    }
    return left;
  }

  private Expression concat() {
    Expression first = product();
    if (!isOperator("~")) {
      return first;
    }
    List<Expression> parts = new ArrayList<>();
    parts.add(first);
    while (takeOperator("~")) {
      parts.add(product());
    }
    return new Concat(parts);
  }

  private Expression product() {
    Expression left = power();
    while (isOperator("*") || isOperator("/") || isOperator("//") || isOperator("%")) {
      String operator = next().text();
      left = new Binary(operator, left, power());
    }
    return left;
  }

  private Expression power() {
    Expression left = unary(true);
    while (takeOperator("**")) {
      left = new Binary("**", left, unary(true));
    }
    return left;
  }

  private Expression unary(boolean withFilter) {
    enter();
    Expression value;
    if (isOperator("-") || isOperator("+")) {
      String operator = next().text();
      value = new Unary(operator, unary(false));
    } else {
      value = primary();
    }
    value = postfix(value);
    if (withFilter) {
      value = filters(value);
    }
    depth--;
    return value;
  }

  private Expression primary() {
    Token token = next();
    switch (token.kind()) {
      case NAME -> {
        return switch (token.text()) {
          case "true", "True" -> new Constant(true);
          case "false", "False" -> new Constant(false);
          case "none", "None" -> new Constant(PythonValue.None.NONE);
          default -> {
            macroNames.forEach(names -> names.add(token.text()));
            yield new Name(token.text());
          }
        };
      }
      case STRING -> {
        StringBuilder text = new StringBuilder(token.text());
        while (token().kind() == Kind.STRING) {
          text.append(next().text());
        }
        return new Constant(MarkedText.trusted(text.toString()));
      }
      case INTEGER -> {
        try {
          return new Constant(Long.parseLong(token.text()));
        } catch (NumberFormatException e) {
          throw TemplateException.syntax(
              "the number " + token.text() + " is too large", token.line());
        }
      }
      case FLOAT -> {
        return new Constant(Double.parseDouble(token.text()));
      }
      case OPERATOR -> {
        return switch (token.text()) {
          case "(" -> parenthesised();
          case "[" -> new SequenceLiteral(items("]"), false);
          case "{" -> dict();
          default -> throw unexpected(token);
        };
      }
      default -> throw unexpected(token);
    }
  }

  private Expression parenthesised() {
    if (takeOperator(")")) {
      return new SequenceLiteral(List.of(), true);
    }
    Expression value = tuple();
    expectOperator(")");
    return value;
  }

  private List<Expression> items(String end) {
    List<Expression> items = new ArrayList<>();
    while (!takeOperator(end)) {
      if (!items.isEmpty()) {
        expectOperator(",");
        if (takeOperator(end)) {
          break;
        }
      }
      items.add(expression());
    }
    return items;
  }

  private Expression dict() {
    List<Entry> entries = new ArrayList<>();
    while (!takeOperator("}")) {
      if (!entries.isEmpty()) {
        expectOperator(",");
        if (takeOperator("}")) {
          break;
        }
      }
      Expression key = expression();
      expectOperator(":");
      entries.add(new Entry(key, expression()));
    }
    return new DictLiteral(entries);
  }

  private Expression postfix(Expression target) {
    Expression value = target;
    while (true) {
      if (takeOperator(".")) {
        Token name = next();
        value =
            switch (name.kind()) {
              case NAME -> new Attribute(value, name.text());
              case INTEGER -> new Subscript(value, new Constant(Long.parseLong(name.text())));
              default -> throw unexpected(name);
            };
      } else if (takeOperator("[")) {
        value = subscript(value);
      } else if (takeOperator("(")) {
        value = new Call(value, arguments());
      } else {
        return value;
      }
    }
  }

  private Expression subscript(Expression target) {
    Optional<Expression> start = Optional.empty();
    if (!isOperator(":")) {
      Expression index = expression();
      if (takeOperator("]")) {
        return new Subscript(target, index);
      }
      if (isOperator(",")) {
        List<Expression> items = new ArrayList<>();
        items.add(index);
        while (takeOperator(",")) {
          items.add(expression());
        }
        expectOperator("]");
        return new Subscript(target, new SequenceLiteral(items, true));
      }
      start = Optional.of(index);
    }
    expectOperator(":");
    Optional<Expression> stop =
        isOperator(":") || isOperator("]") ? Optional.empty() : Optional.of(expression());
    Optional<Expression> step = Optional.empty();
    if (takeOperator(":") && !isOperator("]")) {
      step = Optional.of(expression());
    }
    expectOperator("]");
    return new Slice(target, start, stop, step);
  }

  private CallArguments arguments() {
    List<Expression> positional = new ArrayList<>();
    List<Keyword> named = new ArrayList<>();
    Optional<Expression> spread = Optional.empty();
    Optional<Expression> spreadNamed = Optional.empty();
    boolean first = true;
    while (!takeOperator(")")) {
      if (!first) {
        expectOperator(",");
        if (takeOperator(")")) {
          break;
        }
      }
      first = false;
      if (takeOperator("**")) {
        spreadNamed = Optional.of(expression());
      } else if (takeOperator("*")) {
        spread = Optional.of(expression());
      } else if (token().kind() == Kind.NAME && tokens.get(position + 1).is(Kind.OPERATOR, "=")) {
        String name = next().text();
        position++;
        named.add(new Keyword(name, expression()));
      } else if (named.isEmpty() && spreadNamed.isEmpty()) {
        positional.add(expression());
      } else {
        throw TemplateException.syntax(
            "invalid syntax for function call expression", token().line());
      }
    }
    return new CallArguments(positional, named, spread, spreadNamed);
  }

  private Expression filters(Expression target) {
    Expression value = target;
    while (true) {
      if (isOperator("|")) {
        value = filterChain(value);
      } else if (takeName("is")) {
        value = test(value);
      } else if (takeOperator("(")) {
        value = new Call(value, arguments());
      } else {
        return value;
      }
    }
  }

  /** Filters with bars between; of a filter block's first filter, the bar is left out. */
  private Expression filterChain(Expression target) {
    Expression value = target;
    boolean first = target instanceof Rendered && token().kind() == Kind.NAME;
    while (first || takeOperator("|")) {
      first = false;
      String name = dottedName();
      CallArguments arguments = takeOperator("(") ? arguments() : CallArguments.NONE;
      value = new Filter(value, name, arguments);
    }
    return value;
  }

  private Expression test(Expression target) {
    boolean negated = takeName("not");
    Token token = token();
    String name = dottedName();
    CallArguments arguments = CallArguments.NONE;
    if (takeOperator("(")) {
      arguments = arguments();
    } else if (beginsTestArgument()) {
      if (token().is(Kind.NAME, "is")) {
        throw TemplateException.syntax("You cannot chain multiple tests with is", token.line());
      }
      arguments =
          new CallArguments(
              List.of(postfix(primary())), List.of(), Optional.empty(), Optional.empty());
    }
    Expression test = new Test(target, name, arguments);
    return negated ? new Not(test) : test;
  }

  private boolean beginsTestArgument() {
    Token token = token();
    return switch (token.kind()) {
      case STRING, INTEGER, FLOAT -> true;
      case NAME -> !java.util.Set.of("else", "or", "and").contains(token.text()) && !isKeyword();
      case OPERATOR -> token.text().equals("[") || token.text().equals("{");
      default -> false;
    };
  }

  /** Names that continue the expression or statement around a test. */
  private boolean isKeyword() {
    return java.util.Set.of("if", "in", "not", "recursive").contains(token().text());
  }

  private String dottedName() {
    StringBuilder name = new StringBuilder(expect(Kind.NAME).text());
    while (isOperator(".")) {
      position++;
      name.append('.').append(expect(Kind.NAME).text());
    }
    return name.toString();
  }

  // --- Tokens ---

  private Token token() {
    return tokens.get(position);
  }

  private Token next() {
    Token token = tokens.get(position);
    if (token.kind() != Kind.END) {
      position++;
    }
    return token;
  }

  private boolean isOperator(String text) {
    return token().is(Kind.OPERATOR, text);
  }

  private boolean takeOperator(String text) {
    if (isOperator(text)) {
      position++;
      return true;
    }
    return false;
  }

  private boolean takeName(String text) {
    if (token().is(Kind.NAME, text)) {
      position++;
      return true;
    }
    return false;
  }

  private void expectOperator(String text) {
    if (!takeOperator(text)) {
      throw TemplateException.syntax(
          "expected token '" + text + "', got '" + describe(token()) + "'", token().line());
    }
  }

  private Token expect(Kind kind) {
    Token token = next();
    if (token.kind() != kind) {
      throw TemplateException.syntax(
          "expected token '"
              + kind.name().toLowerCase(Locale.ROOT)
              + "', got '"
              + describe(token)
              + "'",
          token.line());
    }
    return token;
  }

  private TemplateException unexpected() {
    return unexpected(token());
  }

  private static TemplateException unexpected(Token token) {
    return TemplateException.syntax("unexpected '" + describe(token) + "'", token.line());
  }

  private static String describe(Token token) {
    return switch (token.kind()) {
      case VARIABLE_BEGIN -> "begin of print statement";
      case VARIABLE_END -> "end of print statement";
      case BLOCK_BEGIN -> "begin of statement block";
      case BLOCK_END -> "end of statement block";
      case DATA -> "template data / text";
      case END -> "end of template";
      default -> token.text();
    };
  }

  private void enter() {
    if (++depth > DEPTH_MAX) {
      throw TemplateException.limit("depth");
    }
  }
}
