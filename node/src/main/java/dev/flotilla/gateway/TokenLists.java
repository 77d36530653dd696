package dev.flotilla.gateway;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.ArrayList;
import java.util.List;

/** Texts as OpenAI's endpoints take them, as lists of token ids. */
final class TokenLists {

  private TokenLists() {}

  /**
   * A string, an array of strings, an array of token ids, or an array of such arrays.
   *
   * @throws ApiError 400 if it is something else, or more than so many, or one is empty
   */
  static List<int[]> read(Fields fields, String name, int most, ServedModel model) {
    JsonNode value = fields.node(name).orElseThrow(() -> ApiError.missing(name));
    boolean several =
        value.isArray() && !value.isEmpty() && (value.get(0).isTextual() || value.get(0).isArray());
    if (!several) {
      return List.of(read(value, name, model));
    }
    if (value.size() > most) {
      throw ApiError.invalid(name, name + " may hold at most " + most + " texts.");
    }
    List<int[]> lists = new ArrayList<>();
    for (int i = 0; i < value.size(); i++) {
      lists.add(read(value.get(i), name + "[" + i + "]", model));
    }
    return lists;
  }

  private static int[] read(JsonNode value, String path, ServedModel model) {
    int[] tokens;
    if (value.isTextual()) {
      tokens = model.text().encode(value.textValue());
    } else if (value.isArray()) {
      int vocabulary = model.view().config().vocabularySize();
      tokens = new int[value.size()];
      for (int i = 0; i < tokens.length; i++) {
        JsonNode token = value.get(i);
        if (!token.isInt() || token.intValue() < 0 || token.intValue() >= vocabulary) {
          throw ApiError.invalid(
              path, path + "[" + i + "] must be a token id below " + vocabulary + ".");
        }
        tokens[i] = token.intValue();
      }
    } else {
      throw ApiError.invalid(path, path + " must be a string or an array of token ids.");
    }
    if (tokens.length == 0) {
      throw ApiError.invalid(path, path + " must not be empty.");
    }
    return tokens;
  }
}
