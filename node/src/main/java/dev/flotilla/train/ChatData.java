package dev.flotilla.train;

import dev.flotilla.text.BpeTrainer;
import dev.flotilla.text.BpeVocabulary;
import dev.flotilla.text.Tokenizer;
import java.util.Arrays;
import java.util.List;

/**
 * Conversations of the {@link SmallWorld}, packed into sequences. Learned are the answers and the
 * token that ends them; the questions are only read.
 */
final class ChatData implements TrainingData {

  private static final int TOKENIZER_CONVERSATIONS = 4000;
  private static final int PACKED_MAX = 1 << 10;

  private final long seed;
  private final int length;
  private final String tokenizerJson;
  private final Tokenizer tokenizer;
  private final int begin;
  private final int user;
  private final int assistant;
  private final int end;

  ChatData(TrainingConfig config) {
    seed = config.seed();
    length = config.contextLength();
    BpeVocabulary vocabulary =
        BpeTrainer.train(tokenizerText(seed), config.vocabularySize(), SPECIAL_TOKENS);
    tokenizerJson = vocabulary.tokenizerJson();
    tokenizer = Tokenizer.fromJson(tokenizerJson, "the small world");
    begin = SPECIAL_TOKENS.indexOf(BEGIN);
    user = SPECIAL_TOKENS.indexOf(USER);
    assistant = SPECIAL_TOKENS.indexOf(ASSISTANT);
    end = SPECIAL_TOKENS.indexOf(END);
  }

  private static String tokenizerText(long seed) {
    StringBuilder text = new StringBuilder();
    for (int i = 0; i < TOKENIZER_CONVERSATIONS; i++) {
      for (SmallWorld.Question question : SmallWorld.conversation(seed, i)) {
        text.append(question.prompt()).append('\n').append(question.answer()).append('\n');
      }
    }
    return text.toString();
  }

  @Override
  public Tokenizer tokenizer() {
    return tokenizer;
  }

  @Override
  public String tokenizerJson() {
    return tokenizerJson;
  }

  @Override
  public String chatTemplate() {
    return "{{ bos_token }}{% for message in messages %}"
        + "{% if message['role'] == 'assistant' %}<|assistant|>{% else %}<|user|>{% endif %}"
        + "{{ message['content'] }}<|end|>{% endfor %}"
        + "{% if add_generation_prompt %}<|assistant|>{% endif %}";
  }

  /** The tokens up to where the answer to a first question begins. */
  int[] prompt(String question) {
    Writer writer = new Writer(Integer.MAX_VALUE);
    writer.ask(question);
    return writer.tokens();
  }

  /** The token that ends an answer. */
  int end() {
    return end;
  }

  @Override
  public Sequence sequence(long number) {
    int[] tokens = new int[length];
    int[] positions = new int[length];
    int[] documents = new int[length];
    int[] targets = new int[length];
    Arrays.fill(targets, Sequence.NO_TARGET);
    int at = 0;
    int document = 0;
    while (document < PACKED_MAX) {
      Writer writer = new Writer(length - at);
      for (var turn : SmallWorld.conversation(seed, number * PACKED_MAX + document)) {
        writer.ask(turn.prompt());
        writer.answer(turn.answer());
      }
      if (writer.overflowed()) {
        break;
      }
      for (int i = 0; i < writer.size; i++, at++) {
        tokens[at] = writer.tokens[i];
        positions[at] = i;
        documents[at] = document;
        if (writer.learned[i]) {
          targets[at - 1] = writer.tokens[i];
        }
      }
      document++;
    }
    for (int i = 0; at + i < length; i++) {
      positions[at + i] = i;
      documents[at + i] = document;
    }
    return new Sequence(tokens, positions, documents, targets);
  }

  @Override
  public List<Sequence> validation() {
    return List.of();
  }

  @Override
  public void close() {
    tokenizer.close();
  }

  /** Writes one conversation in the format of the chat template. */
  private final class Writer {
    private final int capacity;
    private int[] tokens = new int[256];
    private boolean[] learned = new boolean[256];
    private int size;

    Writer(int capacity) {
      this.capacity = capacity;
      add(begin, false);
    }

    void ask(String question) {
      add(user, false);
      for (int token : tokenizer.encode(question)) {
        add(token, false);
      }
      add(end, false);
      add(assistant, false);
    }

    void answer(String answer) {
      for (int token : tokenizer.encode(answer)) {
        add(token, true);
      }
      add(end, true);
    }

    private void add(int token, boolean learn) {
      if (size == tokens.length) {
        tokens = Arrays.copyOf(tokens, size * 2);
        learned = Arrays.copyOf(learned, size * 2);
      }
      tokens[size] = token;
      learned[size++] = learn;
    }

    boolean overflowed() {
      return size > capacity;
    }

    int[] tokens() {
      return Arrays.copyOf(tokens, size);
    }
  }
}
