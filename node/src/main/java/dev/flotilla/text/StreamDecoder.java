package dev.flotilla.text;

import java.util.Arrays;

/**
 * Turns ids into text as they arrive, in whole characters only. For one thread at a time.
 *
 * <p>The text of an id depends on the ids before it (a leading space, the first bytes of a
 * character), so new ids are decoded together with those of the piece of text before them, and what
 * has been added is handed out, unless it ends in U+FFFD, which may be a character cut short. The
 * window always begins with a whole character, for some decoders give up a run of bytes altogether
 * if it begins in the middle of one; and it is short, so a step costs the same however long the
 * text.
 */
public final class StreamDecoder {

  private static final int CONTEXT_TOKENS = 5;

  /** Longer than any character in tokens of a byte each: what is held by then is no UTF-8. */
  private static final int HELD_TOKENS_MAX = 12;

  private final Tokenizer tokenizer;
  private int[] window;
  private int size;
  private int context;
  private String contextText;

  StreamDecoder(Tokenizer tokenizer, int[] prompt) {
    this.tokenizer = tokenizer;
    int from = Math.max(0, prompt.length - CONTEXT_TOKENS);
    while (from < prompt.length && tokenizer.decode(prompt[from]).startsWith("\uFFFD")) {
      from++;
    }
    this.context = prompt.length - from;
    this.window = Arrays.copyOf(Arrays.copyOfRange(prompt, from, prompt.length), 32);
    this.size = context;
    this.contextText = text();
  }

  /** Takes the next id; returns the text that is now complete, perhaps none. */
  public String next(int id) {
    if (size == window.length) {
      window = Arrays.copyOf(window, size * 2);
    }
    window[size++] = id;
    String text = text();
    if (text.endsWith("\uFFFD") && size - context < HELD_TOKENS_MAX) {
      return "";
    }
    return release(text);
  }

  /** Returns what was held back, at the end of the stream. */
  public String end() {
    return release(text());
  }

  private String release(String text) {
    String added = text.length() > contextText.length() ? text.substring(contextText.length()) : "";
    window = Arrays.copyOf(Arrays.copyOfRange(window, context, size), 32);
    size -= context;
    context = size;
    contextText = text();
    return added;
  }

  private String text() {
    return tokenizer.decode(Arrays.copyOf(window, size), true);
  }
}
