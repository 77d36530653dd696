package dev.flotilla.bench;

import dev.flotilla.app.NodeProcess;
import dev.flotilla.client.Client;
import dev.flotilla.cluster.NodeFiles;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * A real cluster for a measurement: nodes as processes, started by the launcher, each on a host of
 * a {@link FaultNet} where this is allowed, else all on loopback. Deleted at the end.
 */
final class Nodes implements AutoCloseable {

  private static final int PORT = 8000;
  private static final long DISK_BYTES = 1L << 30;

  private final Path folder;
  private final Optional<FaultNet> net;
  private final int firstPort;
  private final String jvm;
  private final boolean spoilable;
  private final List<Path> disks = new ArrayList<>();
  private final List<NodeProcess> nodes = new ArrayList<>();
  private boolean kept;

  /**
   * Starts so many nodes and waits until all are ready.
   *
   * @param jvm further options of their JVMs, such as a planted fault
   * @param spoilable whether each gets a cable that can be bad and a disk that can be filled, where
   *     there are hosts
   */
  Nodes(int count, int firstPort, String jvm, boolean spoilable)
      throws IOException, InterruptedException {
    this.folder = Files.createTempDirectory("flotilla-bench");
    this.firstPort = firstPort;
    this.jvm = jvm;
    this.spoilable = spoilable;
    this.net = FaultNet.isAllowed() ? Optional.of(new FaultNet(firstPort % 250)) : Optional.empty();
    try {
      for (int index = 0; index < count; index++) {
        if (net.isPresent() && spoilable) {
          net.get().addOnWire();
          mount(folder.resolve(name(index)));
        } else if (net.isPresent()) {
          net.get().add();
        }
        add(index);
      }
      awaitReady();
    } catch (IOException | InterruptedException | RuntimeException e) {
      close();
      throw e;
    }
  }

  private void add(int index) throws IOException, InterruptedException {
    List<String> program = new ArrayList<>();
    List<String> more = new ArrayList<>();
    if (net.isPresent()) {
      program.addAll(net.get().on(index + 1));
      more.addAll(List.of("--bind", host(index), "--insecure-http"));
    }
    program.addAll(List.of("env", "FLOTILLA_JVM=" + jvm));
    program.addAll(NodeProcess.launcher());
    if (index > 0) {
      nodes.getFirst().awaitReady();
      Client first = new Client(url(0), Optional.of(key()));
      more.addAll(NodeProcess.joining(first, host(0) + ":" + port(0)));
    }
    String name = name(index);
    nodes.add(new NodeProcess(program, name, folder.resolve(name), port(index), more));
  }

  private void mount(Path disk) throws IOException, InterruptedException {
    Files.createDirectories(disk);
    String size = "size=" + DISK_BYTES;
    if (quietly("mount", "-t", "tmpfs", "-o", size, "tmpfs", disk.toString()) != 0) {
      throw new IOException("a disk of memory cannot be mounted at " + disk);
    }
    disks.add(disk);
  }

  private static int quietly(String... command) throws IOException, InterruptedException {
    return new ProcessBuilder(command)
        .redirectErrorStream(true)
        .redirectOutput(ProcessBuilder.Redirect.DISCARD)
        .start()
        .waitFor();
  }

  /** Whether cables can be bad and disks be filled. */
  boolean spoilable() {
    return spoilable && net.isPresent();
  }

  private static String name(int index) {
    return "node-" + (index + 1);
  }

  private String host(int index) {
    return net.map(n -> n.address(index + 1)).orElse("127.0.0.1");
  }

  private int port(int index) {
    return net.isPresent() ? PORT : firstPort + 10 * index;
  }

  /** How many there are. */
  int count() {
    return nodes.size();
  }

  /** One of them, counted from 0. */
  NodeProcess node(int index) {
    return nodes.get(index);
  }

  /** Where one is reached, counted from 0. */
  String url(int index) {
    return "http://" + host(index) + ":" + port(index);
  }

  void awaitReady() throws IOException, InterruptedException {
    for (NodeProcess node : nodes) {
      node.awaitReady();
    }
  }

  Optional<FaultNet> net() {
    return net;
  }

  /** The admin's key. */
  String key() {
    return Client.keyIn(nodes.getFirst().folder()).orElseThrow();
  }

  /**
   * Leaves the nodes' folders where they are, logs among them, and with them what the threads of
   * those that run were doing, virtual ones too: {@code threads.txt}.
   */
  void keepFolder() throws IOException, InterruptedException {
    kept = true;
    for (NodeProcess node : nodes) {
      int _ =
          quietly(
              Path.of(System.getProperty("java.home"), "bin", "jcmd").toString(),
              String.valueOf(node.pid()),
              "Thread.dump_to_file",
              node.folder().resolve("threads.txt").toString());
    }
  }

  /** Copies the logs from a disk that ends with this run. */
  private void keep(Path disk) throws IOException, InterruptedException {
    Path kept = folder.resolve("kept-" + disk.getFileName());
    Files.createDirectories(kept);
    for (String each : List.of("logs", "threads.txt", "stderr.txt")) {
      int _ = quietly("cp", "-r", disk.resolve(each).toString(), kept.toString());
    }
  }

  /** Where everything lies while it runs. */
  Path folder() {
    return folder;
  }

  @Override
  public void close() throws IOException {
    nodes.forEach(NodeProcess::kill);
    if (net.isPresent()) {
      net.get().close();
    }
    try {
      for (Path disk : disks) {
        if (kept) {
          keep(disk);
        }
        int _ = quietly("umount", "--lazy", disk.toString());
      }
    } catch (InterruptedException e) {
      Thread.currentThread().interrupt();
    }
    if (!kept) {
      NodeFiles.deleteTree(folder);
    }
  }
}
