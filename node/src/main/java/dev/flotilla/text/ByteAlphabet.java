package dev.flotilla.text;

/**
 * GPT-2's printable stand-ins for the 256 bytes: vocabularies of byte-level BPE spell each token as
 * a string of these characters, so that every byte sequence is valid text.
 *
 * <p>Printable Latin-1 bytes stand for themselves; the 68 others take the characters from U+0100
 * on, in byte order (Radford et al. 2019, {@code bytes_to_unicode}).
 */
final class ByteAlphabet {

  private static final char[] CHARACTER_OF_BYTE = new char[256];
  private static final short[] BYTE_OF_CHARACTER = new short[0x144];

  static {
    java.util.Arrays.fill(BYTE_OF_CHARACTER, (short) -1);
    char next = 0x100;
    for (int b = 0; b < 256; b++) {
      boolean printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      CHARACTER_OF_BYTE[b] = printable ? (char) b : next++;
      BYTE_OF_CHARACTER[CHARACTER_OF_BYTE[b]] = (short) b;
    }
  }

  private ByteAlphabet() {}

  /** The stand-in for a byte, 0 to 255. */
  static char characterOf(int unsignedByte) {
    return CHARACTER_OF_BYTE[unsignedByte];
  }

  /** The byte that a character stands for; of those that {@link #spells} takes only. */
  static byte byteOf(char character) {
    return (byte) BYTE_OF_CHARACTER[character];
  }

  /** Whether every character of the token stands for a byte. */
  static boolean spells(String token) {
    for (int i = 0; i < token.length(); i++) {
      char c = token.charAt(i);
      if (c >= BYTE_OF_CHARACTER.length || BYTE_OF_CHARACTER[c] < 0) {
        return false;
      }
    }
    return true;
  }
}
