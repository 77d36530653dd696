package dev.flotilla.train;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.SplittableRandom;

/**
 * A small world that a small model can learn: chat exchanges whose answers can be checked. Who
 * holds a thing that was passed on, where a thing is that was moved, small sums, counting, and
 * reversing a word spelled letter by letter.
 *
 * <p>Everything is a pure function of a seed and a number, so that any worker can make any
 * conversation without having made the ones before. Questions are split into training and held-out
 * by a hash of what they are about (events and thing asked for, summands, letters …), not of their
 * wording: the content of a held-out question is in no training conversation, however phrased.
 *
 * <p>A story has one thing that is held and one that lies somewhere, so the kind of question picks
 * the sentences that count. Two things of one kind, to be told apart by name alone, were beyond
 * what a model of this size learns in minutes; docs/LOG.md has the figures. In training, half of
 * the stories are told piece by piece with a question after each piece, as people chat.
 */
public final class SmallWorld {

  /** What a question is about. */
  public enum Kind {
    /** Who holds a thing that was passed on. */
    HOLDER,
    /** Where a thing is that was moved. */
    PLACE,
    /** A small sum, bare or in words. */
    SUM,
    /** How many words a list has. */
    COUNT,
    /** Counting from one number to another. */
    COUNT_UP,
    /** A word spelled backwards. */
    REVERSE
  }

  /**
   * A question with its one right answer.
   *
   * @param prompt the user's message
   * @param answer the assistant's message, exactly
   */
  public record Question(Kind kind, String prompt, String answer) {}

  /** A question about a content, which decides on which side of the split it falls. */
  private record Draft(String content, Question question) {}

  private static final String[] NAMES = {
    "Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hugo"
  };
  private static final String[] THINGS = {
    "ball", "key", "cup", "book", "lamp", "coin", "hat", "ring"
  };
  private static final String[] PLACES = {
    "kitchen", "garden", "attic", "cellar", "hall", "shed", "office", "car"
  };
  private static final String[] ANIMALS = {"cat", "dog", "bird", "fish", "frog"};
  private static final String[] GOODS = {"apples", "plums", "nuts", "cakes", "shells"};
  private static final int HELD_OUT_ONE_IN = 10;
  private static final int HELD_OUT_TRIES = 500;

  /** How often each kind is trained on: the hard ones more often. */
  private static final Kind[] TRAINED = {
    Kind.HOLDER,
    Kind.HOLDER,
    Kind.PLACE,
    Kind.PLACE,
    Kind.SUM,
    Kind.SUM,
    Kind.COUNT,
    Kind.COUNT_UP,
    Kind.COUNT_UP,
    Kind.REVERSE,
    Kind.REVERSE
  };

  private SmallWorld() {}

  /**
   * A training conversation: questions of which each may build on those before.
   *
   * @param number which one; any two numbers give independent conversations
   */
  public static List<Question> conversation(long seed, long number) {
    var random = new SplittableRandom(mix(seed) + mix(number + 1));
    while (true) {
      Kind kind = TRAINED[random.nextInt(TRAINED.length)];
      List<Question> kept = new ArrayList<>();
      for (Draft draft : drafts(kind, random.nextBoolean(), random)) {
        if (isHeldOut(draft)) {
          break; // what follows would lean on it
        }
        kept.add(draft.question());
      }
      if (!kept.isEmpty()) {
        return kept;
      }
    }
  }

  /**
   * Held-out questions, all different, of all kinds in turn until a kind has no more. The first
   * {@code n} do not depend on how many are asked for.
   */
  public static List<Question> heldOut(long seed, int count) {
    var random = new SplittableRandom(mix(seed) ^ 0x48454c444f5554L);
    List<Question> questions = new ArrayList<>();
    Set<String> prompts = new HashSet<>();
    for (int turn = 0; questions.size() < count; turn++) {
      Kind kind = Kind.values()[turn % Kind.values().length];
      for (int i = 0; i < HELD_OUT_TRIES; i++) {
        Draft draft = drafts(kind, false, random).getFirst();
        if (isHeldOut(draft) && prompts.add(draft.question().prompt())) {
          questions.add(draft.question());
          break;
        }
      }
    }
    return questions;
  }

  private static boolean isHeldOut(Draft draft) {
    long hash = 0;
    String content = draft.question().kind() + " " + draft.content();
    for (byte b : content.getBytes(StandardCharsets.UTF_8)) {
      hash = mix(hash ^ b);
    }
    return Long.remainderUnsigned(hash, HELD_OUT_ONE_IN) == 0;
  }

  private static List<Draft> drafts(Kind kind, boolean piecewise, SplittableRandom random) {
    return switch (kind) {
      case HOLDER, PLACE ->
          piecewise ? new Story(kind, random).inPieces() : new Story(kind, random).whole();
      case SUM -> List.of(sum(random));
      case COUNT -> List.of(count(random));
      case COUNT_UP -> List.of(countUp(random));
      case REVERSE -> List.of(reverse(random));
    };
  }

  /**
   * A story about two things: one that is held and passed on, and one that lies somewhere and is
   * moved. What is asked for decides which sentences count, and the last of those is right.
   */
  private static final class Story {
    private final Kind asked;
    private final SplittableRandom random;
    private final String held;
    private final String placed;
    private final String[] names;
    private final String[] places;
    private final List<String> events = new ArrayList<>();
    private String holder = "";
    private String place = "";

    Story(Kind asked, SplittableRandom random) {
      this.asked = asked;
      this.random = random;
      String[] things = some(THINGS, 2, random);
      held = things[0];
      placed = things[1];
      names = some(NAMES, 4, random);
      places = some(PLACES, 4, random);
    }

    /** The whole story with a question, then one about the other thing. */
    List<Draft> whole() {
      StringBuilder told = new StringBuilder();
      boolean heldFirst = random.nextBoolean();
      int sentences = 2 + random.nextInt(4);
      for (int i = 0; i < sentences; i++) {
        boolean ofHeld = i < 2 ? heldFirst == (i == 0) : random.nextBoolean();
        told.append(ofHeld ? pass() : move()).append(' ');
      }
      Kind other = asked == Kind.HOLDER ? Kind.PLACE : Kind.HOLDER;
      return List.of(ask(asked, told.toString()), ask(other, ""));
    }

    /** A sentence or two at a time, each time with a question about a thing already mentioned. */
    List<Draft> inPieces() {
      List<Draft> drafts = new ArrayList<>();
      int pieces = 2 + random.nextInt(3);
      for (int i = 0; i < pieces; i++) {
        StringBuilder told = new StringBuilder();
        for (int sentence = random.nextInt(2); sentence < 2; sentence++) {
          told.append(random.nextBoolean() ? pass() : move()).append(' ');
        }
        boolean askHolder = place.isEmpty() || (!holder.isEmpty() && random.nextBoolean());
        drafts.add(ask(askHolder ? Kind.HOLDER : Kind.PLACE, told.toString()));
      }
      return drafts;
    }

    private String pass() {
      String before = holder;
      holder = other(names, before, random);
      events.add(held + "=" + holder);
      return before.isEmpty()
          ? any(random, "%s has the %s.", "%s found the %s.").formatted(holder, held)
          : any(
                  random,
                  "%1$s took the %2$s from %3$s.",
                  "%1$s got the %2$s from %3$s.",
                  "%3$s gave the %2$s to %1$s.")
              .formatted(holder, held, before);
    }

    private String move() {
      String before = place;
      place = other(places, before, random);
      events.add(placed + ">" + place);
      return before.isEmpty()
          ? any(random, "The %s is in the %s.", "The %s lies in the %s.").formatted(placed, place)
          : any(random, "The %s was moved to the %s.", "The %s is now in the %s.")
              .formatted(placed, place);
    }

    private Draft ask(Kind kind, String told) {
      String thing = kind == Kind.HOLDER ? held : placed;
      String question =
          kind == Kind.HOLDER
              ? any(random, "Who has the %s?", "Who has the %s now?")
              : any(random, "Where is the %s?", "Where is the %s now?");
      String answer = kind == Kind.HOLDER ? holder : "in the " + place;
      return new Draft(
          String.join(" ", events) + "?" + thing,
          new Question(kind, told + question.formatted(thing), answer));
    }
  }

  private static Draft sum(SplittableRandom random) {
    int a = 1 + random.nextInt(12);
    int b = 1 + random.nextInt(Math.min(12, 20 - a));
    String answer = "" + (a + b);
    if (random.nextBoolean()) {
      String prompt =
          any(random, "What is %d plus %d?", "What is %d + %d?", "Add %d and %d.").formatted(a, b);
      return new Draft(a + "+" + b, new Question(Kind.SUM, prompt, answer));
    }
    String name = any(NAMES, random);
    String goods = any(GOODS, random);
    String prompt =
        "%s has %d %s and %s %d more. How many %s does %s have?"
            .formatted(name, a, goods, any(random, "finds", "gets"), b, goods, name);
    return new Draft(
        a + "+" + b + " " + name + " " + goods, new Question(Kind.SUM, prompt, answer));
  }

  private static Draft count(SplittableRandom random) {
    int length = 2 + random.nextInt(8);
    List<String> list = new ArrayList<>();
    for (int i = 0; i < length; i++) {
      list.add(any(ANIMALS, random));
    }
    String words = String.join(" ", list);
    String prompt =
        any(random, "How many animals are here: %s?", "Count the animals: %s.").formatted(words);
    return new Draft(words, new Question(Kind.COUNT, prompt, "" + length));
  }

  private static Draft countUp(SplittableRandom random) {
    int from = 1 + random.nextInt(60);
    int to = from + 2 + random.nextInt(8);
    StringBuilder answer = new StringBuilder("" + from);
    for (int i = from + 1; i <= to; i++) {
      answer.append(' ').append(i);
    }
    String prompt =
        any(random, "Count from %d to %d.", "Count up from %d to %d.").formatted(from, to);
    return new Draft(from + "-" + to, new Question(Kind.COUNT_UP, prompt, answer.toString()));
  }

  private static Draft reverse(SplittableRandom random) {
    int length = 3 + random.nextInt(3);
    List<String> letters = new ArrayList<>();
    for (int i = 0; i < length; i++) {
      letters.add(String.valueOf((char) ('a' + random.nextInt(26))));
    }
    String word = String.join(" ", letters);
    String prompt = any(random, "Reverse: %s.", "Spell %s backwards.").formatted(word);
    return new Draft(
        word, new Question(Kind.REVERSE, prompt, String.join(" ", letters.reversed())));
  }

  private static String any(SplittableRandom random, String... choices) {
    return any(choices, random);
  }

  private static String any(String[] choices, SplittableRandom random) {
    return choices[random.nextInt(choices.length)];
  }

  private static String other(String[] from, String not, SplittableRandom random) {
    while (true) {
      String candidate = any(from, random);
      if (!candidate.equals(not)) {
        return candidate;
      }
    }
  }

  /** A few different ones, in random order. */
  private static String[] some(String[] from, int count, SplittableRandom random) {
    String[] pool = from.clone();
    for (int i = 0; i < count; i++) {
      int j = i + random.nextInt(pool.length - i);
      String swapped = pool[i];
      pool[i] = pool[j];
      pool[j] = swapped;
    }
    return Arrays.copyOf(pool, count);
  }

  /** The finaliser of SplitMix64, Steele, Lea and Flood 2014. */
  static long mix(long x) {
    x += 0x9E3779B97F4A7C15L;
    x = (x ^ (x >>> 30)) * 0xBF58476D1CE4E5B9L;
    x = (x ^ (x >>> 27)) * 0x94D049BB133111EBL;
    return x ^ (x >>> 31);
  }
}
