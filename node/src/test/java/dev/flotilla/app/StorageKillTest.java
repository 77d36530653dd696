package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.FlotillaException;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpBlobs;
import dev.flotilla.client.HttpSearchIndexes;
import dev.flotilla.cluster.TestNodes;
import dev.flotilla.data.blobs.Blobs;
import dev.flotilla.data.search.IndexDocument;
import dev.flotilla.data.search.SearchAnswer;
import dev.flotilla.data.search.SearchIndex;
import dev.flotilla.data.search.SearchIndexes;
import dev.flotilla.data.search.SearchRequest;
import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A real process is killed with -9, twice, while blobs and documents are written through it. */
class StorageKillTest {

  private static final int[] SIZES = {700, 16 << 10, 90 << 10, 9 << 20};
  private static final int LEAST = 12;

  @TempDir Path folder;

  private final Map<String, Long> blobs = new ConcurrentHashMap<>();
  private final ConcurrentLinkedQueue<String> documents = new ConcurrentLinkedQueue<>();

  @Test
  void whatWasAcknowledgedIsThereAfterTheProcessWasKilled() throws Exception {
    try (TestProcesses nodes = new TestProcesses(folder)) {
      NodeProcess node = nodes.add("one");
      for (int life = 0; life < 2; life++) {
        verify(nodes.client(0));
        int blobsBefore = blobs.size();
        int documentsBefore = documents.size();
        AtomicBoolean stop = new AtomicBoolean();
        List<CompletableFuture<Void>> writers = new ArrayList<>();
        for (int writer = 0; writer < 4; writer++) {
          Client client = nodes.client(0);
          String name = life + "-" + writer;
          writers.add(
              CompletableFuture.runAsync(
                  writer % 2 == 0
                      ? () -> putBlobs(new HttpBlobs(client), name, stop)
                      : () -> putDocuments(new HttpSearchIndexes(client), name, stop)));
        }
        TestNodes.await(
            "writes go on",
            Duration.ofMinutes(2),
            () ->
                blobs.size() >= blobsBefore + LEAST && documents.size() >= documentsBefore + LEAST);
        node.kill();
        stop.set(true);
        for (CompletableFuture<Void> writer : writers) {
          writer.get(60, TimeUnit.SECONDS);
        }
        node.restart();
        node.awaitReady();
      }
      verify(nodes.client(0));
      assertThat(blobs.size()).isGreaterThanOrEqualTo(2 * LEAST);
    }
  }

  private void putBlobs(Blobs to, String writer, AtomicBoolean stop) {
    Random random = new Random(writer.hashCode());
    for (int i = 0; !stop.get(); i++) {
      byte[] content = new byte[SIZES[i % SIZES.length] + random.nextInt(100)];
      random.nextBytes(content);
      try {
        Blobs.Blob kept = to.put("killed", new ByteArrayInputStream(content));
        blobs.put(kept.digest(), (long) content.length);
      } catch (FlotillaException e) {
        return; // The process is gone; this one was not acknowledged.
      }
    }
  }

  private void putDocuments(SearchIndexes to, String writer, AtomicBoolean stop) {
    SearchIndex index = to.index("killed");
    for (int i = 0; !stop.get(); i++) {
      String id = writer + "-" + i;
      try {
        var _ = index.put(IndexDocument.ofText(id, "written " + id.replace('-', ' ')));
        documents.add(id);
      } catch (FlotillaException e) {
        return;
      }
    }
  }

  private void verify(Client client) throws Exception {
    Blobs kept = new HttpBlobs(client);
    for (Map.Entry<String, Long> blob : blobs.entrySet()) {
      assertThat(digest(kept, blob.getKey())).isEqualTo(blob.getKey());
      assertThat(kept.find(blob.getKey()).orElseThrow().size()).isEqualTo(blob.getValue());
    }
    if (documents.isEmpty()) {
      return;
    }
    SearchIndex index = new HttpSearchIndexes(client).index("killed");
    for (String id : documents) {
      assertThat(index.document(id)).as(id).isPresent();
    }
    // Found, too: the index's own files are behind, and follow from where they were committed.
    TreeSet<String> found = new TreeSet<>();
    long deadlineNs = System.nanoTime() + 60_000_000_000L;
    while (!found.containsAll(documents) && System.nanoTime() < deadlineNs) {
      found.clear();
      String next = "";
      do {
        SearchRequest page = SearchRequest.of("written").withK(500);
        SearchAnswer answer = index.search(next.isEmpty() ? page : page.after(next));
        found.addAll(answer.ids());
        next = answer.next();
      } while (!next.isEmpty());
      Thread.sleep(50);
    }
    assertThat(found).containsAll(documents);
  }

  private static String digest(Blobs kept, String digest) throws Exception {
    MessageDigest sha256 = MessageDigest.getInstance("SHA-256");
    try (InputStream content = kept.read(digest, 0, Long.MAX_VALUE)) {
      byte[] piece = new byte[1 << 16];
      for (int count = content.read(piece); count >= 0; count = content.read(piece)) {
        sha256.update(piece, 0, count);
      }
    }
    return "sha256:" + HexFormat.of().formatHex(sha256.digest());
  }
}
