package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import dev.flotilla.train.SmallWorld;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.Semaphore;

/**
 * What the demo asks the served model, always the same, so that answers can be compared question by
 * question.
 */
final class DemoQuestions {

  private static final int COUNT = 240;
  private static final int TEXT_COUNT = 24;
  private static final int TEXT_PROMPT_CHARACTERS = 40;
  private static final int TEXT_TOKENS = 32;
  private static final int TEXT_CHARACTERS_MIN = 20_000;
  private static final int ANSWER_TOKENS = 24;
  private static final int AT_ONCE = 16;

  /**
   * One question; a text's has no expected answer, for nothing but its own continuation is right.
   */
  private record Question(String endpoint, Map<String, Object> body, Optional<String> expected) {}

  /** Every answer, in the order of the questions. */
  record Answers(List<String> texts, int right, long tokens, double seconds) {

    double accuracy() {
      return (double) right / texts.size();
    }

    double tokensPerSecond() {
      return tokens / seconds;
    }

    /** How many answers differ, question by question. */
    long differing(Answers other) {
      long differing = 0;
      for (int i = 0; i < texts.size(); i++) {
        differing += texts.get(i).equals(other.texts.get(i)) ? 0 : 1;
      }
      return differing;
    }
  }

  private final List<Question> questions;

  private DemoQuestions(List<Question> questions) {
    this.questions = questions;
  }

  /** Held-out questions of the generated task. */
  static DemoQuestions ofSmallWorld(String model, long seed) {
    List<Question> questions = new ArrayList<>();
    for (SmallWorld.Question asked : SmallWorld.heldOut(seed, COUNT)) {
      questions.add(
          new Question(
              "/v1/chat/completions",
              Map.of(
                  "model",
                  model,
                  "messages",
                  List.of(Map.of("role", "user", "content", asked.prompt())),
                  "temperature",
                  0,
                  "max_tokens",
                  ANSWER_TOKENS,
                  // What is shown is that the cluster answers, not that it remembers.
                  "cache",
                  false),
              Optional.of(asked.answer())));
    }
    return new DemoQuestions(questions);
  }

  /** Places in the part of a text that was not trained on, to be continued. */
  static DemoQuestions ofText(String model, Path file) {
    // Whole characters, so that none is cut in two.
    int[] text = TextFiles.read(file).codePoints().toArray();
    if (text.length < TEXT_CHARACTERS_MIN) {
      throw new FlotillaException(
          FlotillaException.Code.INVALID,
          file + " has " + text.length + " characters, too few to train on and to hold a part out",
          "Name a text of at least " + TEXT_CHARACTERS_MIN + " characters.");
    }
    int begin = text.length / 10 * 9;
    int stride = (text.length - begin - TEXT_PROMPT_CHARACTERS) / TEXT_COUNT;
    List<Question> questions = new ArrayList<>();
    for (int i = 0; i < TEXT_COUNT; i++) {
      String prompt = new String(text, begin + i * stride, TEXT_PROMPT_CHARACTERS);
      questions.add(
          new Question(
              "/v1/completions",
              Map.of(
                  "model",
                  model,
                  "prompt",
                  prompt,
                  "temperature",
                  0,
                  "max_tokens",
                  TEXT_TOKENS,
                  "cache",
                  false),
              Optional.empty()));
    }
    return new DemoQuestions(questions);
  }

  int count() {
    return questions.size();
  }

  /** The first question's request, to be streamed. */
  Map<String, Object> body(int index) {
    return questions.get(index).body();
  }

  String endpoint(int index) {
    return questions.get(index).endpoint();
  }

  /** Asks all of them, several at once. */
  Answers ask(Client client) throws InterruptedException, ExecutionException {
    long begun = System.nanoTime();
    Semaphore places = new Semaphore(AT_ONCE);
    List<Future<JsonNode>> running = new ArrayList<>();
    try (ExecutorService threads = Executors.newVirtualThreadPerTaskExecutor()) {
      for (Question question : questions) {
        places.acquire();
        running.add(
            threads.submit(
                () -> {
                  try {
                    return client.post(question.endpoint(), question.body());
                  } finally {
                    places.release();
                  }
                }));
      }
    }
    List<String> texts = new ArrayList<>();
    int right = 0;
    long tokens = 0;
    for (int i = 0; i < questions.size(); i++) {
      JsonNode answer = running.get(i).get();
      JsonNode choice = answer.path("choices").path(0);
      String text =
          choice.has("message")
              ? choice.path("message").path("content").asText()
              : choice.path("text").asText();
      texts.add(text);
      right += questions.get(i).expected().filter(text::equals).isPresent() ? 1 : 0;
      tokens += answer.path("usage").path("completion_tokens").asLong();
    }
    return new Answers(texts, right, tokens, (System.nanoTime() - begun) / 1e9);
  }
}
