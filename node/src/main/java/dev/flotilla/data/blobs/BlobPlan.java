package dev.flotilla.data.blobs;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Compares the chunks that must be there with those that are, and says what to do. Pure: the same
 * view gives the same actions, and carrying them out leads to a view that gives none.
 */
final class BlobPlan {

  /** What is to be done, in the order of what is most needed. */
  sealed interface Action {}

  /** A node that should keep the chunk has none, and another has. */
  record Copy(String chunk, String to) implements Action {}

  /** No node that answers has it. */
  record Missing(String chunk) implements Action {}

  /** All that should keep the chunk have it, and this node is not one of them. */
  record DropSurplus(String chunk, String node) implements Action {}

  /** Nothing mentions the chunk. */
  record DropGarbage(String chunk, String node) implements Action {}

  private BlobPlan() {}

  /**
   * @param live all chunks that a blob or an upload mentions
   * @param members nodes that count as keepers
   * @param leaving those of them that keep what they have and get nothing more
   * @param held what each node has that answered; one that did not is left alone
   */
  static List<Action> actions(
      Set<String> live,
      Set<String> members,
      Set<String> leaving,
      Map<String, Set<String>> held,
      int copies) {
    List<Action> urgent = new ArrayList<>();
    List<Action> others = new ArrayList<>();
    for (String chunk : live) {
      List<String> eligible =
          members.stream()
              .filter(
                  node ->
                      !leaving.contains(node) || held.getOrDefault(node, Set.of()).contains(chunk))
              .toList();
      List<String> keepers = BlobPlacement.keepers(chunk, eligible, copies);
      List<String> holders =
          held.entrySet().stream()
              .filter(node -> node.getValue().contains(chunk))
              .map(Map.Entry::getKey)
              .toList();
      if (holders.isEmpty()) {
        others.add(new Missing(chunk));
        continue;
      }
      List<String> lacking =
          keepers.stream().filter(k -> held.containsKey(k) && !holders.contains(k)).toList();
      // A chunk with a single copy left goes first.
      lacking.forEach(to -> (holders.size() == 1 ? urgent : others).add(new Copy(chunk, to)));
      if (holders.containsAll(keepers)) {
        holders.stream()
            .filter(node -> !keepers.contains(node))
            .forEach(node -> others.add(new DropSurplus(chunk, node)));
      }
    }
    held.forEach(
        (node, chunks) ->
            chunks.stream()
                .filter(chunk -> !live.contains(chunk))
                .forEach(chunk -> others.add(new DropGarbage(chunk, node))));
    urgent.addAll(others);
    return urgent;
  }
}
