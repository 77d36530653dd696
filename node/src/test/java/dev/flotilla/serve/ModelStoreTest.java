package dev.flotilla.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.flotilla.FlotillaException;
import dev.flotilla.cluster.FakeCluster;
import dev.flotilla.model.AllReduce;
import dev.flotilla.model.GgufHeader;
import dev.flotilla.model.LayerRange;
import dev.flotilla.model.LayerSlice;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.time.InstantSource;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.TreeMap;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class ModelStoreTest {

  @TempDir Path folder;
  private final FakeWorld world = new FakeWorld();
  private final TreeMap<String, ModelStore> stores = new TreeMap<>();
  private Path gguf = Path.of("");

  @BeforeEach
  void startNodes() throws IOException {
    gguf = TestModel.write(folder.resolve("random.gguf"), 7);
    start("a");
    start("b");
    start("c");
  }

  private void start(String id) {
    FakeCluster node = world.add(id, 1000);
    ModelStore store = new ModelStore(node, folder.resolve(id), 1, InstantSource.system());
    node.addService(store.service());
    node.start();
    store.start();
    stores.put(id, store);
  }

  @AfterEach
  void stopNodes() throws Exception {
    for (ModelStore store : stores.values()) {
      store.close();
    }
    world.close();
  }

  private ModelRecord model() {
    return ModelRecord.of(world.registry(), "m").orElseThrow();
  }

  private static void await(BooleanSupplier condition) throws InterruptedException {
    long endNs = System.nanoTime() + TimeUnit.SECONDS.toNanos(10);
    while (!condition.getAsBoolean()) {
      assertThat(System.nanoTime()).isLessThan(endNs);
      Thread.sleep(5);
    }
  }

  private List<String> filesOf(String node) throws IOException {
    Path models = folder.resolve(node).resolve("data/models");
    try (Stream<Path> files = Files.walk(models)) {
      return files
          .filter(Files::isRegularFile)
          .map(f -> String.valueOf(f.getFileName()))
          .sorted()
          .toList();
    }
  }

  private Placement placement(String node, int first, int last) {
    return new Placement(
        "m-0",
        "m",
        model().digest(),
        64,
        Engine.DEFAULT,
        List.of(new Deployments.StageView(node, first, last)));
  }

  private String third() {
    return Stream.of("a", "b", "c").filter(n -> !model().holders().contains(n)).findFirst().get();
  }

  @Test
  void twoNodesKeepTheWholeFileAndALostOneIsReplaced() throws Exception {
    stores.get("a").add("m", gguf);
    await(() -> model().holders().size() == 2);
    String third = third();
    String lost = model().holders().stream().filter(h -> !h.equals("a")).findFirst().orElseThrow();
    world.kill(lost);
    world.notice(lost, dev.flotilla.cluster.NodeInfo.State.LOST);
    await(() -> model().holders().contains(third));
    assertThat(folder.resolve(third).resolve("data/models/" + model().digest() + "/model.gguf"))
        .hasSameBinaryContentAs(gguf);
  }

  @Test
  void aNodeWithoutTheFileFetchesOnlyWhatItsLayersNeed() throws Exception {
    stores.get("a").add("m", gguf);
    await(() -> model().holders().size() == 2);
    String third = third();
    List<Long> here = new ArrayList<>();
    List<Long> wanted = new ArrayList<>();
    LoadProgress progress =
        (bytes, of) -> {
          here.add(bytes);
          wanted.add(of);
        };
    try (LayerSlice slice =
        stores.get(third).load(placement(third, 2, 3), 0, AllReduce.ALONE, progress)) {
      assertThat(slice.range()).isEqualTo(new LayerRange(2, 3));
    }
    assertThat(wanted).hasSizeGreaterThanOrEqualTo(18).containsOnly(here.getLast());
    assertThat(here).isSorted();
    List<String> files = filesOf(third);
    assertThat(files).filteredOn(f -> f.startsWith("tensor-")).hasSize(18);
    assertThat(files).doesNotContain("model.gguf").noneMatch(f -> f.endsWith(".part"));
    assertThat(stores.get(third).metadata("m")).containsEntry("general.name", "random");
  }

  /** Its streams come from other nodes; only what it would compute itself needs its disk. */
  @Test
  void aNodeThatCannotWriteKnowsTheModelAllTheSame() throws Exception {
    stores.get("a").add("m", gguf);
    await(() -> model().holders().size() == 2);
    String third = third();
    Path models = folder.resolve(third).resolve("data/models");
    Files.createDirectories(models);
    Files.writeString(models.resolve(model().digest()), "where the folder should be");
    assertThat(stores.get(third).metadata("m")).containsEntry("general.name", "random");
    assertThatThrownBy(
            () ->
                stores
                    .get(third)
                    .load(placement(third, 2, 3), 0, AllReduce.ALONE, LoadProgress.NONE))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.STORAGE));
  }

  @Test
  void aFetchThatWasCutGoesOnAndADamagedPartIsFetchedAgain() throws Exception {
    stores.get("a").add("m", gguf);
    await(() -> model().holders().size() == 2);
    String third = third();
    stores.get(third).load(placement(third, 2, 3), 0, AllReduce.ALONE, LoadProgress.NONE).close();
    Path parts = folder.resolve(third).resolve("data/models/" + model().digest() + "/parts");
    List<Path> tensors = new ArrayList<>();
    try (Stream<Path> files = Files.list(parts)) {
      files.filter(f -> f.getFileName().toString().startsWith("tensor-")).forEach(tensors::add);
    }
    byte[] whole = Files.readAllBytes(tensors.get(0));
    Files.delete(tensors.get(0));
    Path part = parts.resolve(tensors.get(0).getFileName() + ".part");
    Files.write(part, Arrays.copyOf(whole, whole.length / 2));
    flipBit(tensors.get(1), 9);
    stores.get(third).load(placement(third, 2, 3), 0, AllReduce.ALONE, LoadProgress.NONE).close();
    assertThat(Files.readAllBytes(tensors.get(0))).isEqualTo(whole);
    assertThat(part).doesNotExist();

    // A damaged beginning is noticed at the end, and not kept.
    Files.delete(tensors.get(0));
    byte[] half = Arrays.copyOf(whole, whole.length / 2);
    half[0] ^= 1;
    Files.write(part, half);
    stores.get(third).load(placement(third, 2, 3), 0, AllReduce.ALONE, LoadProgress.NONE).close();
    assertThat(Files.readAllBytes(tensors.get(0))).isEqualTo(whole);
  }

  private static void flipBit(Path file, int at) throws IOException {
    try (FileChannel channel =
        FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
      ByteBuffer one = ByteBuffer.allocate(1);
      channel.read(one, at);
      one.put(0, (byte) (one.get(0) ^ 4)).rewind();
      channel.write(one, at);
    }
  }

  @Test
  void aDamagedWholeFileIsRecognisedDiscardedAndReplaced() throws Exception {
    stores.get("a").add("m", gguf);
    await(() -> model().holders().size() == 2);
    Path copy = folder.resolve("a/data/models/" + model().digest() + "/model.gguf");
    flipBit(copy, (int) Files.size(copy) - 200);
    stores.get("a").load(placement("a", 0, 5), 0, AllReduce.ALONE, LoadProgress.NONE).close();
    // Whichever node is quicker makes up for it.
    await(
        () ->
            model().holders().size() == 2
                && model().holders().stream()
                    .allMatch(
                        h ->
                            sameAs(
                                folder
                                    .resolve(h)
                                    .resolve("data/models/" + model().digest() + "/model.gguf"))));
  }

  private boolean sameAs(Path copy) {
    try {
      return Files.exists(copy) && Files.mismatch(copy, gguf) < 0;
    } catch (IOException e) {
      return false;
    }
  }

  @Test
  void filesThatAreCutOrForeignAreRefusedAndLeaveNothing() throws Exception {
    byte[] whole = Files.readAllBytes(gguf);
    // Padding may follow the last tensor; without it the file is still whole.
    int needed =
        (int)
            GgufHeader.read(gguf).tensors().stream()
                .mapToLong(t -> t.offset() + t.bytes())
                .max()
                .orElseThrow();
    long seed = System.nanoTime();
    Random random = new Random(seed);
    for (int i = 0; i < 20; i++) {
      int length = i == 0 ? 0 : i == 1 ? needed - 1 : random.nextInt(needed);
      Path cut = Files.write(folder.resolve("cut.gguf"), Arrays.copyOf(whole, length));
      assertThatThrownBy(() -> stores.get("a").add("m", cut))
          .as("seed %d, %d bytes", seed, length)
          .isInstanceOfSatisfying(
              FlotillaException.class,
              e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.BAD_FILE));
    }
    Path foreign = Files.writeString(folder.resolve("foreign.gguf"), "PK\3\4 not a model");
    assertThatThrownBy(() -> stores.get("a").add("m", foreign))
        .isInstanceOf(FlotillaException.class);
    assertThatThrownBy(() -> stores.get("a").add("m", folder.resolve("absent.gguf")))
        .isInstanceOf(FlotillaException.class);
    assertThat(filesOf("a")).isEmpty();
    assertThat(world.registry().list(ModelRecord.KIND)).isEmpty();
  }

  @Test
  void namesAreCheckedAndTakenNamesRefused() throws Exception {
    for (String bad :
        List.of("", ".", "..", "../x", "a/b", "a..b", "a b", "x\0", "ä", "x".repeat(129))) {
      assertThatThrownBy(() -> stores.get("a").add(bad, gguf))
          .isInstanceOfSatisfying(
              FlotillaException.class,
              e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.INVALID));
    }
    Deployments.ModelView added = stores.get("a").add("m", gguf);
    assertThat(added.config().layers()).isEqualTo(TestModel.LAYERS);
    // The same again, from another node, is no conflict.
    assertThat(stores.get("b").add("m", gguf).digest()).isEqualTo(added.digest());
    Path other = TestModel.write(folder.resolve("other.gguf"), 8);
    assertThatThrownBy(() -> stores.get("b").add("m", other))
        .isInstanceOfSatisfying(
            FlotillaException.class,
            e -> assertThat(e.code()).isEqualTo(FlotillaException.Code.CONFLICT));
    // The same file under two names is kept once, and stays until both are gone.
    stores.get("a").add("n", gguf);
    stores.get("a").remove("m");
    Thread.sleep(100);
    assertThat(filesOf("a")).contains("model.gguf");
    stores.get("a").remove("n");
    await(
        () -> {
          try {
            return filesOf("a").isEmpty() && filesOf("b").isEmpty();
          } catch (IOException e) {
            return false;
          }
        });
  }

  @Test
  void theProfileIsMeasuredQuicklyAndKept() throws Exception {
    long startNs = System.nanoTime();
    var profile = NodeProfile.measure(folder, "1.0.0");
    assertThat(System.nanoTime() - startNs).isLessThan(TimeUnit.SECONDS.toNanos(3));
    assertThat(profile.get(NodeProfile.WEIGHT_BYTES_PER_SECOND)).isBetween(1e8, 1e12);
    assertThat(profile.get(NodeProfile.MEMORY_BYTES)).isGreaterThan(1e8);
    assertThat(NodeProfile.measure(folder, "1.0.0").get(NodeProfile.WEIGHT_BYTES_PER_SECOND))
        .isEqualTo(profile.get(NodeProfile.WEIGHT_BYTES_PER_SECOND));
  }
}
