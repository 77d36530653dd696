package dev.flotilla.simulate;

import com.google.protobuf.InvalidProtocolBufferException;
import dev.flotilla.cluster.Registry;
import dev.flotilla.cluster.RegistryState;
import dev.flotilla.cluster.ReplicatedLog;
import dev.flotilla.cluster.proto.Command;
import dev.flotilla.cluster.proto.CommandResult;
import java.io.IOException;
import java.net.ConnectException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.SortedMap;
import java.util.TreeMap;
import java.util.concurrent.CompletableFuture;
import java.util.zip.CRC32;

/**
 * The group that keeps the registry's log: Raft as the registry sees it. Terms, leaders, replicated
 * logs and their conflicts are there; votes are counted in one go by who can reach whom. A leader
 * that was cut off goes on believing in itself for a while; what it was given may come into the log
 * of the next, or not; what was written to a disk and not forced may survive a death in part.
 *
 * <p>What is applied is checked: all nodes apply the same commands in the same order, and none that
 * was confirmed is ever lost.
 */
final class Group {

  private static final long BEAT_NS = 300 * World.MS;
  private static final long ELECT_LOW_NS = 1_200 * World.MS;
  private static final long ELECT_HIGH_NS = 1_600 * World.MS;
  private static final long LOOK_NS = 50 * World.MS;
  private static final long ATTEMPT_NS = 2_500 * World.MS;
  private static final int SNAPSHOT_EVERY = 20;
  private static final int SNAPSHOTS_KEPT = 2;
  private static final int AT_ONCE = 64;

  /**
   * A command in a log.
   *
   * @param origin the process that sent it; empty for what a new leader writes itself
   */
  record Entry(long term, byte[] command, String origin) {}

  /** A snapshot on a disk, whole or not. */
  private record Snapshot(long index, byte[] bytes, long checksum) {

    boolean whole() {
      return Group.checksum(bytes) == checksum;
    }
  }

  /** What a member has on its disk. */
  static final class Stored {
    private long term;
    private final List<Entry> entries = new ArrayList<>();
    private final List<Snapshot> snapshots = new ArrayList<>();
  }

  /** Hears what is decided, in order, once. */
  interface Observer {

    /**
     * A command was decided for the first time.
     *
     * @param before what was true until then
     * @param written whether its conditions held
     */
    void decided(
        Entry entry,
        Command command,
        SortedMap<Registry.Key, Registry.Entry> before,
        boolean written);
  }

  private final World world;
  private final Network network;
  private final List<String> voters;
  private final List<String> members;
  private final Observer observer;

  /** All that was ever confirmed. */
  private final List<Entry> decided = new ArrayList<>();

  private final RegistryState truth = new RegistryState();
  private long bytesDecided;
  private int elections;
  private int tornSnapshots;
  private int tornEntries;

  Group(World world, Network network, List<String> members, int voters, Observer observer) {
    this.world = world;
    this.network = network;
    this.members = List.copyOf(members);
    this.voters = List.copyOf(members.subList(0, Math.min(voters, members.size())));
    this.observer = observer;
  }

  int elections() {
    return elections;
  }

  int tornSnapshots() {
    return tornSnapshots;
  }

  int tornEntries() {
    return tornEntries;
  }

  /** Of all commands that were decided: what each member gets, once. */
  long bytesDecided() {
    return bytesDecided;
  }

  /** What was decided so far. */
  RegistryState truth() {
    return truth;
  }

  private static long checksum(byte[] bytes) {
    CRC32 crc = new CRC32();
    crc.update(bytes);
    return crc.getValue();
  }

  private boolean both(String a, String b) {
    return network.open(a, b) && network.open(b, a);
  }

  /** A majority has it for good. */
  private void decide(long index, Entry entry) {
    if (decided.size() != index - 1) {
      throw new Violation("entry " + index + " is decided after " + decided.size());
    }
    decided.add(entry);
    bytesDecided += entry.command.length;
    if (entry.command.length > 0) {
      Command command = parse(entry.command);
      SortedMap<Registry.Key, Registry.Entry> before = truth.entries();
      CommandResult result = truth.apply(command, index);
      if (result.getRevision() == index) {
        observer.decided(entry, command, before, result.getEpoch() == index);
      }
    }
  }

  private static Command parse(byte[] command) {
    try {
      return Command.parseFrom(command);
    } catch (InvalidProtocolBufferException e) {
      throw new Violation("not a command", e);
    }
  }

  /** A process's part in the group. */
  final class Member implements ReplicatedLog {

    private final SimulatedNode process;
    private final String self;
    private final Stored disk;

    /** The log as this process has it; the disk has a beginning of it. */
    private final List<Entry> log;

    private final RegistryState state = new RegistryState();
    private final TreeMap<Long, List<CompletableFuture<Boolean>>> waiting = new TreeMap<>();
    private final Map<Long, CompletableFuture<Answer>> proposals = new HashMap<>();
    private final Map<String, Long> matched = new HashMap<>();
    private final Map<String, Long> answeredNs = new HashMap<>();
    private final Runnable changed;
    private long applied;
    private long commit;
    private long heardNs;
    private long patienceNs;
    private long readyAt;
    private boolean leads;
    private boolean snapshotting;
    private Optional<String> leader = Optional.empty();

    /**
     * Starts from what the disk has.
     *
     * @param changed hears of everything that is applied here
     */
    Member(SimulatedNode process, Stored disk, Runnable changed) {
      this.process = process;
      this.self = process.name();
      this.disk = disk;
      this.changed = changed;
      this.log = new ArrayList<>(disk.entries);
      load();
      this.heardNs = world.nowNs();
      this.patienceNs = world.between(150 * World.MS, 400 * World.MS);
      world.after(world.between(0, LOOK_NS), process, this::look);
    }

    /** The newest snapshot that is whole; what is not is set aside. */
    private void load() {
      for (int i = disk.snapshots.size() - 1; i >= 0; i--) {
        Snapshot snapshot = disk.snapshots.get(i);
        if (snapshot.whole()) {
          try {
            state.load(snapshot.bytes);
          } catch (InvalidProtocolBufferException e) {
            throw new Violation("a whole snapshot does not load", e);
          }
          applied = snapshot.index;
          commit = snapshot.index;
          return;
        }
        disk.snapshots.remove(i);
      }
    }

    private long last() {
      return log.size();
    }

    private long termAt(long index) {
      return index == 0 ? 0 : log.get((int) index - 1).term;
    }

    // Who leads.

    private void look() {
      world.after(LOOK_NS, process, this::look);
      if (leads) {
        long answering =
            voters.stream()
                .filter(
                    v ->
                        v.equals(self)
                            || world.nowNs() - answeredNs.getOrDefault(v, 0L) < ELECT_HIGH_NS)
                .count();
        if (2 * answering <= voters.size()) {
          stepDown(Optional.empty());
        }
        return;
      }
      if (world.nowNs() - heardNs > patienceNs) {
        if (leader.isPresent()) {
          leader = Optional.empty();
          changed.run();
        }
        if (voters.contains(self)) {
          stand();
        }
      }
    }

    private void stand() {
      heardNs = world.nowNs();
      patienceNs = world.between(ELECT_LOW_NS, ELECT_HIGH_NS);
      List<Member> votes = new ArrayList<>();
      long term = disk.term;
      for (String voter : voters) {
        SimulatedNode other = network.machine(voter).running();
        if (other == null || !both(self, voter) || other.stoppedUntilNs > world.nowNs()) {
          continue;
        }
        Member member = other.member();
        boolean upToDate =
            termAt(last()) > member.termAt(member.last())
                || (termAt(last()) == member.termAt(member.last()) && last() >= member.last());
        boolean content =
            member != this
                && (member.leads || world.nowNs() - member.heardNs < ELECT_LOW_NS)
                && member.leader.isPresent();
        if (upToDate && !content) {
          votes.add(member);
          term = Math.max(term, member.disk.term);
        }
      }
      if (2 * votes.size() <= voters.size()) {
        return;
      }
      elections++;
      for (Member vote : votes) {
        vote.disk.term = term + 1;
        if (vote != this && vote.leads) {
          vote.stepDown(Optional.empty());
        }
        vote.heardNs = world.nowNs();
      }
      lead();
    }

    private void lead() {
      leads = true;
      leader = Optional.of(self);
      matched.clear();
      answeredNs.clear();
      voters.forEach(v -> answeredNs.put(v, world.nowNs()));
      log.add(new Entry(disk.term, new byte[0], ""));
      readyAt = last();
      force();
      long term = disk.term;
      beat(term);
    }

    private void stepDown(Optional<String> next) {
      leads = false;
      leader = next;
      heardNs = world.nowNs();
      patienceNs = world.between(ELECT_LOW_NS, ELECT_HIGH_NS);
      proposals.forEach(
          (index, answer) ->
              answer.complete(new Unsure(Optional.of(new IOException("not the leader")))));
      proposals.clear();
      changed.run();
    }

    private void beat(long term) {
      if (leads && disk.term == term) {
        replicate();
        world.after(BEAT_NS, process, () -> beat(term));
      }
    }

    // How entries come to the others.

    private void replicate() {
      for (String member : members) {
        if (!member.equals(self)) {
          replicate(member);
        }
      }
    }

    private void replicate(String to) {
      long from = matched.getOrDefault(to, Math.max(0, last() - 1));
      List<Entry> news =
          List.copyOf(log.subList((int) from, (int) Math.min(last(), from + AT_ONCE)));
      long term = disk.term;
      long previousTerm = termAt(from);
      long confirmed = commit;
      network.packet(
          process,
          to,
          there -> there.member().append(this, term, from, previousTerm, news, confirmed),
          () -> {});
    }

    private void append(
        Member from,
        long term,
        long previous,
        long previousTerm,
        List<Entry> news,
        long confirmed) {
      if (term < disk.term) {
        long mine = disk.term;
        network.packet(process, from.self, there -> there.member().overtaken(mine), () -> {});
        return;
      }
      disk.term = term;
      if (leads) {
        stepDown(Optional.of(from.self));
      }
      heardNs = world.nowNs();
      patienceNs = world.between(ELECT_LOW_NS, ELECT_HIGH_NS);
      if (!leader.equals(Optional.of(from.self))) {
        leader = Optional.of(from.self);
        changed.run();
      }
      if (previous > last() || termAt(previous) != previousTerm) {
        answer(from, term, commit); // so far it is sure to be the same
        return;
      }
      for (int i = 0; i < news.size(); i++) {
        long index = previous + i + 1;
        if (index <= last() && termAt(index) != news.get(i).term) {
          cut(index - 1);
        }
        if (index > last()) {
          log.add(news.get(i));
        }
      }
      long matches = previous + news.size();
      long confirmable = Math.min(confirmed, matches);
      force()
          .thenRun(
              () -> {
                if (disk.term == term) {
                  confirm(confirmable);
                  answer(from, term, Math.min(matches, disk.entries.size()));
                }
              });
    }

    private void cut(long index) {
      if (index < commit) {
        throw new Violation(self + " would drop entry " + (index + 1) + ", which is decided");
      }
      log.subList((int) index, log.size()).clear();
      if (disk.entries.size() > index) {
        disk.entries.subList((int) index, disk.entries.size()).clear();
      }
    }

    private void answer(Member to, long term, long matches) {
      network.packet(
          process,
          to.self,
          there -> {
            if (there.member() == to) {
              to.matched(self, term, matches);
            }
          },
          () -> {});
    }

    private void overtaken(long term) {
      if (term > disk.term) {
        disk.term = term;
        if (leads) {
          stepDown(Optional.empty());
        }
      }
    }

    private void matched(String member, long term, long matches) {
      if (!leads || term != disk.term) {
        return;
      }
      answeredNs.put(member, world.nowNs());
      matched.merge(member, matches, Math::max);
      advance();
      if (matches < last()) {
        replicate(member);
      }
    }

    private void advance() {
      for (long index = disk.entries.size(); index > commit; index--) {
        long at = index;
        long having =
            voters.stream()
                .filter(v -> v.equals(self) || matched.getOrDefault(v, 0L) >= at)
                .count();
        if (2 * having > voters.size() && termAt(index) == disk.term) {
          confirm(index);
          replicate();
          return;
        }
      }
    }

    /** Forces the log to the disk; what came meanwhile goes with the next time. */
    private CompletableFuture<Void> force() {
      CompletableFuture<Void> forced = new CompletableFuture<>();
      int length = log.size();
      long term = disk.term;
      world.after(
          process.diskNs(100_000),
          process,
          () -> {
            for (int i = disk.entries.size(); i < Math.min(length, log.size()); i++) {
              disk.entries.add(log.get(i));
            }
            if (leads && disk.term == term) {
              advance();
            }
            forced.complete(null);
          });
      return forced;
    }

    // What is applied.

    private void confirm(long index) {
      commit = Math.max(commit, index);
      boolean news = false;
      while (applied < commit) {
        Entry entry = log.get((int) applied);
        long next = applied + 1;
        if (next > decided.size()) {
          decide(next, entry);
        } else if (!Arrays.equals(decided.get((int) applied).command, entry.command)) {
          throw new Violation(self + " applies another entry " + next + " than was decided");
        }
        byte[] result = new byte[0];
        if (entry.command.length > 0) {
          result = state.apply(parse(entry.command), next).toByteArray();
        }
        applied = next;
        news = true;
        CompletableFuture<Answer> proposal = proposals.remove(next);
        if (proposal != null) {
          proposal.complete(new Applied(result));
        }
        if (applied % SNAPSHOT_EVERY == 0) {
          snapshot();
        }
      }
      if (news) {
        waiting
            .headMap(applied, true)
            .values()
            .forEach(all -> all.forEach(one -> one.complete(true)));
        waiting.headMap(applied, true).clear();
        changed.run();
      }
    }

    private void snapshot() {
      byte[] bytes = state.toSnapshot();
      Snapshot written =
          new Snapshot(applied, Arrays.copyOf(bytes, bytes.length / 2), checksum(bytes));
      disk.snapshots.add(written); // half of it, until it was forced
      snapshotting = true;
      world.after(
          process.diskNs(5 * World.MS),
          process,
          () -> {
            snapshotting = false;
            int at = disk.snapshots.indexOf(written);
            if (at >= 0) {
              disk.snapshots.set(at, new Snapshot(written.index, bytes, written.checksum));
            }
            while (disk.snapshots.size() > SNAPSHOTS_KEPT) {
              disk.snapshots.removeFirst();
            }
          });
    }

    /** The process dies: of what was not forced, the disk may have a beginning. */
    void die() {
      if (snapshotting) {
        tornSnapshots++;
      }
      int written = disk.entries.size();
      while (disk.entries.size() < log.size() && world.chance(0.5)) {
        disk.entries.add(log.get(disk.entries.size()));
      }
      tornEntries += log.size() - written;
    }

    // What the registry asks for.

    @Override
    public RegistryState state() {
      return state;
    }

    @Override
    public long appliedIndex() {
      return applied;
    }

    @Override
    public boolean awaitApplied(long index, long timeoutNs) throws InterruptedException {
      if (applied >= index) {
        return true;
      }
      CompletableFuture<Boolean> there = new CompletableFuture<>();
      waiting.computeIfAbsent(index, i -> new ArrayList<>()).add(there);
      return process.threads().await(there, timeoutNs);
    }

    @Override
    public Optional<String> leader() {
      return leader;
    }

    @Override
    public boolean leads() {
      return leads && applied >= readyAt;
    }

    @Override
    public Answer propose(String to, byte[] command) throws IOException, InterruptedException {
      CompletableFuture<Answer> answer = new CompletableFuture<>();
      network.packet(
          process,
          to,
          there ->
              there
                  .member()
                  .propose(new Entry(0, command, process.id()))
                  .thenAccept(
                      said ->
                          network.packet(
                              there,
                              self,
                              here -> {
                                if (here == process) {
                                  answer.complete(said);
                                }
                              },
                              () -> {})),
          () -> answer.completeExceptionally(new ConnectException("refused by " + to)));
      if (!process.threads().await(answer, ATTEMPT_NS)) {
        throw new IOException("no answer from " + to);
      }
      if (answer.isCompletedExceptionally()) {
        throw new ConnectException("refused by " + to);
      }
      return answer.join();
    }

    private CompletableFuture<Answer> propose(Entry entry) {
      if (!leads) {
        return CompletableFuture.completedFuture(
            new Unsure(Optional.of(new IOException(self + " is not the leader"))));
      }
      if (!leads()) {
        return CompletableFuture.completedFuture(
            new NotReady(new IOException(self + " is not ready")));
      }
      log.add(new Entry(disk.term, entry.command, entry.origin));
      CompletableFuture<Answer> answer = new CompletableFuture<>();
      proposals.put(last(), answer);
      var _ = force();
      replicate();
      return answer;
    }

    @Override
    public List<String> members() {
      return members;
    }

    @Override
    public List<String> voters() {
      return voters;
    }

    @Override
    public void standForElectionAsVoterOnly() {
      // It never does otherwise.
    }

    @Override
    public void handOver() {
      // A planned stop is a stop here.
    }

    @Override
    public boolean expel(String nodeId, List<String> alive) {
      throw new Violation("nobody was removed, and node " + nodeId + " is expelled");
    }
  }
}
