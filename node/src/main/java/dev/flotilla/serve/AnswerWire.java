package dev.flotilla.serve;

import com.google.protobuf.ByteString;
import dev.flotilla.serve.AnswerValue.Progress;
import dev.flotilla.serve.Generator.FinishReason;
import dev.flotilla.serve.proto.AnswerStart;
import dev.flotilla.serve.proto.ChoiceStart;
import dev.flotilla.serve.proto.ChoiceUpdate;
import dev.flotilla.serve.proto.Prompt;
import dev.flotilla.serve.proto.TakeReply;
import java.util.ArrayList;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Optional;
import java.util.stream.IntStream;

/** Answers as they travel between nodes. */
final class AnswerWire {

  private AnswerWire() {}

  static AnswerStart start(AnswerValue value) {
    GenerationRequest first = value.requests().getFirst();
    AnswerStart.Builder start =
        AnswerStart.newBuilder()
            .setId(value.id())
            .setTurn(value.turn())
            .setRendering(ByteString.copyFrom(value.rendering()))
            .setModel(first.model())
            .setTenant(first.claim().tenant())
            .setPriority(first.claim().priority().label())
            .setMaxTokens(first.maxTokens())
            .setGrammar(first.grammar().orElse(""))
            .addAllEndTokens(() -> IntStream.of(first.endTokens()).iterator());
    IdentityHashMap<int[], Integer> prompts = new IdentityHashMap<>();
    for (GenerationRequest request : value.requests()) {
      int prompt = prompts.computeIfAbsent(request.prompt(), _ -> prompts.size());
      if (prompt == start.getPromptsCount()) {
        start.addPrompts(
            Prompt.newBuilder().addAllTokens(() -> IntStream.of(request.prompt()).iterator()));
      }
      SamplingParameters sampling = request.sampling();
      start.addChoices(
          ChoiceStart.newBuilder()
              .setPrompt(prompt)
              .setTemperature(sampling.temperature())
              .setTopP(sampling.topP())
              .setTopK(sampling.topK())
              .setSeed(sampling.seed()));
    }
    return start.build();
  }

  /** An answer that has not begun. */
  static AnswerValue value(AnswerStart start) {
    List<int[]> prompts =
        start.getPromptsList().stream().map(prompt -> Wire.ints(prompt.getTokensList())).toList();
    int[] endTokens = Wire.ints(start.getEndTokensList());
    Optional<String> grammar = Wire.grammar(start.getGrammar());
    Claim claim = Wire.claim(start.getTenant(), start.getPriority());
    List<GenerationRequest> requests = new ArrayList<>();
    for (ChoiceStart choice : start.getChoicesList()) {
      requests.add(
          new GenerationRequest(
              start.getId() + "-" + requests.size(),
              start.getModel(),
              prompts.get(choice.getPrompt()),
              new SamplingParameters(
                  choice.getTemperature(), choice.getTopP(), choice.getTopK(), choice.getSeed()),
              start.getMaxTokens(),
              endTokens,
              grammar,
              claim));
    }
    return new AnswerValue(
        start.getId(),
        start.getTurn(),
        start.getRendering().toByteArray(),
        requests,
        Collections.nCopies(requests.size(), Progress.NONE));
  }

  static ChoiceUpdate choice(int choice, int position, int[] tokens, Optional<FinishReason> end) {
    return ChoiceUpdate.newBuilder()
        .setChoice(choice)
        .setPosition(position)
        .addAllTokens(() -> IntStream.of(tokens).iterator())
        .setEnd(end.map(Enum::name).orElse(""))
        .build();
  }

  static Optional<FinishReason> end(ChoiceUpdate update) {
    return update.getEnd().isEmpty()
        ? Optional.empty()
        : Optional.of(FinishReason.valueOf(update.getEnd()));
  }

  static TakeReply taken(AnswerValue value, boolean owned) {
    TakeReply.Builder reply = TakeReply.newBuilder().setStart(start(value)).setOwned(owned);
    for (int choice = 0; choice < value.progress().size(); choice++) {
      Progress progress = value.progress().get(choice);
      reply.addChoices(choice(choice, 0, progress.tokens(), progress.end()));
    }
    return reply.build();
  }

  /** What was taken; empty if there was nothing. */
  static Optional<AnswerValue> taken(TakeReply reply) {
    if (!reply.hasStart()) {
      return Optional.empty();
    }
    AnswerValue begun = value(reply.getStart());
    List<Progress> progress =
        reply.getChoicesList().stream()
            .map(choice -> new Progress(Wire.ints(choice.getTokensList()), end(choice)))
            .toList();
    return Optional.of(
        new AnswerValue(begun.id(), begun.turn(), begun.rendering(), begun.requests(), progress));
  }
}
