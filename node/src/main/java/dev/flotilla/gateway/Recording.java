package dev.flotilla.gateway;

import dev.flotilla.serve.Generator.FinishReason;
import java.util.List;

/** The tokens of a complete answer, choice by choice, and why each ended. */
record Recording(List<Choice> choices) {

  /** One choice; if a stop text ended it, its last token is the one that completed that text. */
  record Choice(List<Integer> tokens, FinishReason reason) {}
}
