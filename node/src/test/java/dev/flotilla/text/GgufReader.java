package dev.flotilla.text;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Just enough of GGUF v3 to read the metadata of a vocabulary file. */
final class GgufReader {

  private final ByteBuffer in;

  private GgufReader(ByteBuffer in) {
    this.in = in;
  }

  static Map<String, Object> metadata(Path file) throws IOException {
    GgufReader reader =
        new GgufReader(ByteBuffer.wrap(Files.readAllBytes(file)).order(ByteOrder.LITTLE_ENDIAN));
    reader.in.position(16);
    long entries = reader.in.getLong();
    Map<String, Object> result = new LinkedHashMap<>();
    for (long i = 0; i < entries; i++) {
      String key = reader.string();
      result.put(key, reader.value(reader.in.getInt()));
    }
    return result;
  }

  private String string() {
    byte[] bytes = new byte[(int) in.getLong()];
    in.get(bytes);
    return new String(bytes, StandardCharsets.UTF_8);
  }

  private Object value(int type) {
    return switch (type) {
      case 0, 1 -> in.get();
      case 2, 3 -> in.getShort();
      case 4, 5 -> in.getInt();
      case 6 -> in.getFloat();
      case 7 -> in.get() != 0;
      case 8 -> string();
      case 9 -> {
        int elementType = in.getInt();
        long length = in.getLong();
        List<Object> elements = new ArrayList<>();
        for (long i = 0; i < length; i++) {
          elements.add(value(elementType));
        }
        yield elements;
      }
      case 10, 11 -> in.getLong();
      case 12 -> in.getDouble();
      default -> throw new IllegalArgumentException("type " + type);
    };
  }
}
