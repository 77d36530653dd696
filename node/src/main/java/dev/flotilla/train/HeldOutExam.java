package dev.flotilla.train;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Asks a model the held-out questions of the small world; an answer counts if it is exact. */
final class HeldOutExam {

  private static final int BATCH = 64;

  private HeldOutExam() {}

  /** Share of right answers, in all and by kind. */
  record Mark(double accuracy, Map<String, Double> byKind) {}

  static Mark mark(List<SmallWorld.Question> questions, List<String> answers) {
    Map<String, int[]> counts = new LinkedHashMap<>();
    int right = 0;
    for (int i = 0; i < questions.size(); i++) {
      int[] count =
          counts.computeIfAbsent(
              questions.get(i).kind().name().toLowerCase(java.util.Locale.ROOT), k -> new int[2]);
      boolean exact = questions.get(i).answer().equals(answers.get(i));
      count[0] += exact ? 1 : 0;
      count[1]++;
      right += exact ? 1 : 0;
    }
    Map<String, Double> byKind = new LinkedHashMap<>();
    counts.forEach((kind, count) -> byKind.put(kind, (double) count[0] / count[1]));
    return new Mark((double) right / questions.size(), byKind);
  }

  /**
   * Greedy answers. Without a KV cache every token costs a pass over the whole sequence, which for
   * short answers is cheap enough.
   */
  static List<String> answers(
      TrainingModel model, ChatData data, List<SmallWorld.Question> questions) {
    List<String> answers = new ArrayList<>();
    for (int from = 0; from < questions.size(); from += BATCH) {
      var some = questions.subList(from, Math.min(questions.size(), from + BATCH));
      answers.addAll(batch(model, data, some));
    }
    return answers;
  }

  private static List<String> batch(
      TrainingModel model, ChatData data, List<SmallWorld.Question> questions) {
    List<int[]> prompts = questions.stream().map(q -> data.prompt(q.prompt())).toList();
    List<int[]> sequences = new ArrayList<>(prompts);
    // Longer than the right answer is wrong however it goes on.
    List<Integer> lengthsMax = new ArrayList<>();
    List<Integer> unfinished = new ArrayList<>();
    for (int i = 0; i < questions.size(); i++) {
      int answer = data.tokenizer().encode(questions.get(i).answer()).length;
      lengthsMax.add(prompts.get(i).length + answer + 1);
      unfinished.add(i);
    }
    while (!unfinished.isEmpty()) {
      int[] next = model.nextTokens(unfinished.stream().map(sequences::get).toList());
      List<Integer> still = new ArrayList<>();
      for (int i = 0; i < next.length; i++) {
        int question = unfinished.get(i);
        if (next[i] != data.end()) {
          int[] sequence = sequences.get(question);
          int[] longer = Arrays.copyOf(sequence, sequence.length + 1);
          longer[sequence.length] = next[i];
          sequences.set(question, longer);
          if (longer.length < lengthsMax.get(question)) {
            still.add(question);
          }
        }
      }
      unfinished = still;
    }
    List<String> answers = new ArrayList<>();
    for (int i = 0; i < sequences.size(); i++) {
      int[] sequence = sequences.get(i);
      answers.add(
          data.tokenizer()
              .decode(Arrays.copyOfRange(sequence, prompts.get(i).length, sequence.length)));
    }
    return answers;
  }
}
