package dev.flotilla.text;

import java.util.List;
import java.util.Optional;

/** The parts of a parsed template. */
sealed interface JinjaNode {

  /** What yields a value. */
  sealed interface Expression extends JinjaNode {}

  /** What writes output or changes variables. */
  sealed interface Statement extends JinjaNode {}

  /** A value written in the template; see {@link PythonValue} for which there are. */
  record Constant(Object value) implements Expression {}

  record Name(String name) implements Expression {}

  record SequenceLiteral(List<Expression> items, boolean tuple) implements Expression {}

  record Entry(Expression key, Expression value) {}

  record DictLiteral(List<Entry> entries) implements Expression {}

  record Unary(String operator, Expression operand) implements Expression {}

  record Binary(String operator, Expression left, Expression right) implements Expression {}

  record And(Expression left, Expression right) implements Expression {}

  record Or(Expression left, Expression right) implements Expression {}

  record Not(Expression operand) implements Expression {}

  record Comparison(String operator, Expression operand) {}

  /** {@code first < second <= third}: each operand is compared with the one before it. */
  record Compare(Expression first, List<Comparison> rest) implements Expression {}

  record Concat(List<Expression> parts) implements Expression {}

  record Conditional(Expression test, Expression then, Optional<Expression> otherwise)
      implements Expression {}

  record Attribute(Expression target, String name) implements Expression {}

  record Subscript(Expression target, Expression index) implements Expression {}

  record Slice(
      Expression target,
      Optional<Expression> start,
      Optional<Expression> stop,
      Optional<Expression> step)
      implements Expression {}

  record Keyword(String name, Expression value) {}

  /**
   * @param spread the operand of {@code *}
   * @param spreadNamed the operand of {@code **}
   */
  record CallArguments(
      List<Expression> positional,
      List<Keyword> named,
      Optional<Expression> spread,
      Optional<Expression> spreadNamed) {
    static final CallArguments NONE =
        new CallArguments(List.of(), List.of(), Optional.empty(), Optional.empty());
  }

  record Call(Expression callee, CallArguments arguments) implements Expression {}

  record Filter(Expression target, String name, CallArguments arguments) implements Expression {}

  record Test(Expression target, String name, CallArguments arguments) implements Expression {}

  /** The text that a filter block or a set block has rendered, as the innermost filter's input. */
  record Rendered() implements Expression {}

  record Data(MarkedText text) implements Statement {}

  record Print(Expression value) implements Statement {}

  record Branch(Expression test, List<Statement> body) {}

  record If(List<Branch> branches, List<Statement> otherwise) implements Statement {}

  record For(
      Target target,
      Expression iterable,
      Optional<Expression> filter,
      List<Statement> body,
      List<Statement> otherwise,
      boolean recursive)
      implements Statement {}

  record Set(Target target, Expression value) implements Statement {}

  /**
   * @param filtered {@link Rendered}, perhaps within filters
   */
  record SetBlock(Target target, Expression filtered, List<Statement> body) implements Statement {}

  record FilterBlock(Expression filtered, List<Statement> body) implements Statement {}

  record Parameter(String name, Optional<Expression> fallback) {}

  /**
   * @param names the variables that the body reads, for whether it takes further arguments
   */
  record Macro(
      String name, List<Parameter> parameters, List<Statement> body, java.util.Set<String> names)
      implements Statement {}

  record CallBlock(Macro caller, Expression call) implements Statement {}

  record With(List<Assignment> assignments, List<Statement> body) implements Statement {}

  record Assignment(Target target, Expression value) {}

  record Break() implements Statement {}

  record Continue() implements Statement {}

  /** Where a value goes. */
  sealed interface Target {}

  record Variable(String name) implements Target {}

  record NamespaceAttribute(String namespace, String attribute) implements Target {}

  record Unpack(List<Target> targets) implements Target {}
}
