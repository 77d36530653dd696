package dev.flotilla.gateway;

import java.util.List;

/** One model's way from text to token ids and back. */
interface TextCodec {

  /** A message of a chat. */
  record Message(String role, String content) {}

  int[] encode(String text);

  int[] encodeChat(List<Message> messages);

  int[] endTokens();

  /** A fresh decoder for one generation. */
  Decoder decoder();

  /** Turns tokens into text as they come; never delivers half a character. */
  interface Decoder {

    String push(int token);

    String end();
  }
}
