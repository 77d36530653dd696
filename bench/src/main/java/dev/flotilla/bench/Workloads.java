package dev.flotilla.bench;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.bench.Api.Answer;
import dev.flotilla.bench.History.Operation;
import dev.flotilla.bench.History.Outcome;
import dev.flotilla.bench.ListAppend.Step;
import dev.flotilla.bench.ListAppend.Transaction;
import dev.flotilla.bench.Models.Held;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** The workloads of {@code bench jepsen}. */
final class Workloads {

  private Workloads() {}

  static List<Workload> all() {
    return List.of(
        new Register(),
        new Lock(),
        new Bank(),
        new Lists(),
        new TotalQueue(),
        new Elements("elements"));
  }

  private static Map<String, Object> statement(String sql, Object... arguments) {
    return Map.of("statement", sql, "arguments", Arrays.asList(arguments));
  }

  private static Answer sql(Api api, String sql, Object... arguments) throws InterruptedException {
    return api.post("/api/sql", statement(sql, arguments));
  }

  /** For what must succeed: a healthy cluster, after a few tries. */
  static Answer must(Api api, String path, Map<String, ?> body) throws InterruptedException {
    Answer answer = api.post(path, body);
    boolean perhapsDone = false;
    for (int i = 0; i < 60 && answer.outcome() != Outcome.DONE; i++) {
      perhapsDone |= answer.outcome() == Outcome.UNKNOWN;
      Thread.sleep(500);
      answer = api.post(path, body);
      if (perhapsDone && answer.status() == 409) {
        return answer;
      }
    }
    if (answer.outcome() != Outcome.DONE) {
      throw new IllegalStateException(path + " " + body + ": " + answer);
    }
    return answer;
  }

  private static JsonNode mustSql(Api api, String sql, Object... arguments)
      throws InterruptedException {
    return must(api, "/api/sql", statement(sql, arguments)).body();
  }

  /** Registers in a table, one row each: read, write, compare and set by single statements. */
  static final class Register implements Workload {
    private static final int OPERATIONS_A_KEY = 150;
    private final History history = new History(System::nanoTime);
    private final AtomicInteger value = new AtomicInteger();
    private final AtomicInteger begun = new AtomicInteger();
    private final Set<String> made = new HashSet<>();

    @Override
    public String name() {
      return "register";
    }

    @Override
    public void prepare(Api api) throws InterruptedException {
      mustSql(api, "CREATE TABLE registers (k VARCHAR PRIMARY KEY, v VARCHAR)");
      for (int i = 0; i < 4; i++) {
        mustSql(api, "INSERT INTO registers (k, v) VALUES (?, '0')", "r" + i);
      }
    }

    @Override
    public void step(int client, Api api, Random random) throws InterruptedException {
      // New registers from time to time keep each one's history short enough to decide.
      int generation = begun.incrementAndGet() / (4 * OPERATIONS_A_KEY);
      String key = "r" + (4 * generation + random.nextInt(4));
      if (generation > 0 && !makeSure(api, key)) {
        return;
      }
      int kind = random.nextInt(5);
      if (kind < 2) {
        History.Call call = history.call(client, key, "read", "");
        Answer answer = sql(api, "SELECT v FROM registers WHERE k = ?", key);
        history.end(
            call, answer.outcome(), answer.body().path("rows").path(0).path(0).asText("nothing"));
      } else if (kind < 4) {
        String written = Integer.toString(value.incrementAndGet());
        History.Call call = history.call(client, key, "write", written);
        Answer answer = sql(api, "UPDATE registers SET v = ? WHERE k = ?", written, key);
        history.end(call, answer.outcome(), "");
      } else {
        String expected = last(key);
        String written = Integer.toString(value.incrementAndGet());
        History.Call call = history.call(client, key, "cas", expected + " " + written);
        Answer answer =
            sql(api, "UPDATE registers SET v = ? WHERE k = ? AND v = ?", written, key, expected);
        history.end(
            call, answer.outcome(), Boolean.toString(answer.body().path("updated").asLong() == 1));
      }
    }

    private boolean makeSure(Api api, String key) throws InterruptedException {
      synchronized (made) {
        if (made.contains(key)) {
          return true;
        }
      }
      Answer answer = sql(api, "INSERT INTO registers (k, v) VALUES (?, '0')", key);
      if (answer.outcome() == Outcome.DONE || answer.code().equals("conflict")) {
        synchronized (made) {
          made.add(key);
        }
        return true;
      }
      return false;
    }

    private String last(String key) {
      return history.operations().reversed().stream()
          .filter(o -> o.key().equals(key) && o.action().equals("read"))
          .filter(o -> o.outcome() == Outcome.DONE)
          .map(Operation::answer)
          .findFirst()
          .orElse("0");
    }

    @Override
    public List<String> check(Api api) {
      return Models.registerViolations(history.operations()).entrySet().stream()
          .map(entry -> "not linearizable: " + entry.getKey() + " " + entry.getValue())
          .toList();
    }

    @Override
    public int operations() {
      return history.size();
    }

    @Override
    public List<String> history() {
      return history.operations().stream().map(History.Operation::toString).toList();
    }
  }

  /** A lock, and a queue that it guards: who lost the lock must not write. */
  static final class Lock implements Workload {
    private static final int TTL_MS = 2_000;
    private final History grants = new History(System::nanoTime);
    private final History writes = new History(System::nanoTime);
    private final AtomicInteger round = new AtomicInteger();

    @Override
    public String name() {
      return "lock";
    }

    @Override
    public void prepare(Api api) {}

    /** A lock that was granted, and to whom. */
    record Claim(int client, String lock, String holder, String token, long calledNs) {}

    @Override
    public void step(int client, Api api, Random random) throws InterruptedException {
      Optional<Claim> granted = acquire(client, api, "jepsen-" + random.nextInt(2));
      if (granted.isEmpty()) {
        return;
      }
      for (int i = 0; i <= random.nextInt(4); i++) {
        // Sometimes past the lease: a holder that was paused and does not know it.
        Thread.sleep(random.nextInt(10) == 0 ? TTL_MS + 500 : random.nextInt(50));
        write(granted.get(), api);
      }
      release(granted.get(), api);
    }

    /** Waits a second for it at most. */
    Optional<Claim> acquire(int client, Api api, String lock) throws InterruptedException {
      String holder = "client-" + client + "-" + round.incrementAndGet();
      History.Call call = grants.call(client, lock, "acquire", holder);
      Answer granted =
          api.post(
              "/api/locks/" + lock + "/acquire",
              Map.of("holder", holder, "ttl_ms", TTL_MS, "wait_ms", 1_000));
      String token = granted.body().path("token").asText();
      grants.end(call, granted.outcome(), token);
      return granted.outcome() == Outcome.DONE
          ? Optional.of(new Claim(client, lock, holder, token, call.calledNs()))
          : Optional.empty();
    }

    /** To the queue that the lock guards. */
    Outcome write(Claim claim, Api api) throws InterruptedException {
      History.Call write = writes.call(claim.client(), claim.lock(), "write", claim.token());
      Answer written =
          api.post(
              "/api/queues/guarded-" + claim.lock() + "/messages",
              Map.of(
                  "key",
                  "k",
                  "body",
                  claim.holder(),
                  "fence",
                  Map.of("lock", claim.lock(), "token", Long.parseLong(claim.token()))));
      writes.end(write, written.outcome(), "");
      return written.outcome();
    }

    /** If it is still the holder's; else its lease ran out, at some time not before it could. */
    void release(Claim claim, Api api) throws InterruptedException {
      String argument = claim.holder() + " " + claim.token();
      History.Call release = grants.call(claim.client(), claim.lock(), "release", argument);
      Answer released =
          api.post(
              "/api/locks/" + claim.lock() + "/release",
              Map.of("holder", claim.holder(), "token", Long.parseLong(claim.token())));
      if (released.outcome() != Outcome.NOT_DONE) {
        grants.end(release, released.outcome(), "");
      }
      if (released.outcome() != Outcome.DONE) {
        long couldNs = claim.calledNs() + TTL_MS * 1_000_000L;
        grants.end(
            new History.Call(claim.client(), claim.lock(), "release", argument, couldNs),
            Outcome.UNKNOWN,
            "");
      }
    }

    @Override
    public List<String> check(Api api) {
      List<String> anomalies = new ArrayList<>();
      Linearizability.violations(grants.operations(), Held.NOBODY, Models.LOCK)
          .forEach((key, operations) -> anomalies.add("two holders at once: " + operations));
      Linearizability.violations(writes.operations(), 0L, Models.FENCED)
          .forEach((key, operations) -> anomalies.add("a stale token wrote: " + operations));
      return anomalies;
    }

    @Override
    public int operations() {
      return grants.size() + writes.size();
    }

    @Override
    public List<String> history() {
      return Stream.of(grants, writes)
          .flatMap(each -> each.operations().stream())
          .map(History.Operation::toString)
          .toList();
    }
  }

  /** Transfers between accounts; the sum is kept. */
  static final class Bank implements Workload {
    private static final int ACCOUNTS = 8;
    private static final long EACH = 100;
    private final History history = new History(System::nanoTime);

    @Override
    public String name() {
      return "bank";
    }

    @Override
    public void prepare(Api api) throws InterruptedException {
      mustSql(api, "CREATE TABLE accounts (id INT PRIMARY KEY, balance BIGINT)");
      for (int i = 0; i < ACCOUNTS; i++) {
        mustSql(api, "INSERT INTO accounts (id, balance) VALUES (?, ?)", i, EACH);
      }
    }

    @Override
    public void step(int client, Api api, Random random) throws InterruptedException {
      if (random.nextInt(3) == 0) {
        History.Call call = history.call(client, "bank", "read", "");
        Answer answer =
            api.post("/api/transactions", Map.of("steps", List.of(statement(BALANCES))));
        history.end(call, answer.outcome(), balances(answer.body().path("results").path(0)));
        return;
      }
      int from = random.nextInt(ACCOUNTS);
      int to = (from + 1 + random.nextInt(ACCOUNTS - 1)) % ACCOUNTS;
      long amount = 1L + random.nextInt(10);
      History.Call call = history.call(client, "bank", "transfer", from + " " + to + " " + amount);
      Answer answer =
          api.post(
              "/api/transactions",
              Map.of(
                  "steps",
                  List.of(
                      statement(
                          "UPDATE accounts SET balance = balance - ? WHERE id = ?", amount, from),
                      statement(
                          "UPDATE accounts SET balance = balance + ? WHERE id = ?", amount, to))));
      history.end(call, answer.outcome(), answer.body().path("id").asText());
    }

    private static final String BALANCES = "SELECT id, balance FROM accounts ORDER BY id";

    private static String balances(JsonNode result) {
      List<String> balances = new ArrayList<>();
      result.path("rows").forEach(row -> balances.add(row.path(1).asText()));
      return String.join(" ", balances);
    }

    @Override
    public List<String> check(Api api) throws InterruptedException {
      History.Call call = history.call(0, "bank", "read", "");
      history.end(call, Outcome.DONE, balances(mustSql(api, BALANCES)));
      return SetChecks.bank(history.operations(), ACCOUNTS * EACH);
    }

    @Override
    public int operations() {
      return history.size();
    }

    @Override
    public List<String> history() {
      return history.operations().stream().map(History.Operation::toString).toList();
    }
  }

  /** Transactions that append to lists and read them. */
  static final class Lists implements Workload {
    private static final int KEYS = 6;
    private static final int APPENDS_A_LIST = 40;
    private final List<Transaction> transactions = new ArrayList<>();
    private final AtomicInteger value = new AtomicInteger();

    @Override
    public String name() {
      return "list-append";
    }

    @Override
    public void prepare(Api api) throws InterruptedException {
      mustSql(api, "CREATE TABLE lists (k VARCHAR PRIMARY KEY, v VARCHAR)");
      // All that will be needed: lists stay short, so that reading them stays cheap.
      for (int i = 0; i < 60 * KEYS; i++) {
        mustSql(api, "INSERT INTO lists (k, v) VALUES (?, '')", "l" + i);
      }
    }

    @Override
    public void step(int client, Api api, Random random) throws InterruptedException {
      List<Step> planned = new ArrayList<>();
      List<Map<String, Object>> statements = new ArrayList<>();
      for (int i = 0; i <= random.nextInt(4); i++) {
        int generation = Math.min(59, value.get() / (KEYS * APPENDS_A_LIST));
        String key = "l" + (generation * KEYS + random.nextInt(KEYS));
        if (random.nextBoolean()) {
          int next = value.incrementAndGet();
          planned.add(new Step.Append(key, next));
          statements.add(statement("UPDATE lists SET v = v || ? WHERE k = ?", " " + next, key));
        } else {
          planned.add(new Step.Read(key, Optional.empty()));
          statements.add(statement("SELECT v FROM lists WHERE k = ?", key));
        }
      }
      long calledNs = System.nanoTime();
      Answer answer = api.post("/api/transactions", Map.of("steps", statements));
      long endedNs = System.nanoTime();
      List<Step> steps = new ArrayList<>();
      for (int i = 0; i < planned.size(); i++) {
        Step step = planned.get(i);
        if (step instanceof Step.Read(String key, var none) && answer.outcome() == Outcome.DONE) {
          steps.add(new Step.Read(key, Optional.of(list(answer.body().path("results").path(i)))));
        } else {
          steps.add(step);
        }
      }
      synchronized (transactions) {
        transactions.add(
            new Transaction(transactions.size(), steps, answer.outcome(), calledNs, endedNs));
      }
    }

    private static List<Integer> list(JsonNode result) {
      String text = result.path("rows").path(0).path(0).asText().strip();
      return text.isEmpty()
          ? List.of()
          : Arrays.stream(text.split(" ")).map(Integer::valueOf).toList();
    }

    @Override
    public List<String> check(Api api) throws InterruptedException {
      long calledNs = System.nanoTime();
      List<Step> reads = new ArrayList<>();
      Set<String> keys = new HashSet<>();
      transactions.forEach(t -> t.steps().forEach(step -> keys.add(step.key())));
      for (String key : keys) {
        reads.add(
            new Step.Read(
                key, Optional.of(list(mustSql(api, "SELECT v FROM lists WHERE k = ?", key)))));
      }
      transactions.add(
          new Transaction(transactions.size(), reads, Outcome.DONE, calledNs, System.nanoTime()));
      return ListAppend.check(transactions);
    }

    @Override
    public int operations() {
      synchronized (transactions) {
        return transactions.size();
      }
    }

    @Override
    public List<String> history() {
      synchronized (transactions) {
        return transactions.stream().map(Transaction::toString).toList();
      }
    }
  }

  /** Messages are sent, received, and leave one row each, in the transaction that acknowledges. */
  static final class TotalQueue implements Workload {
    private final History history = new History(System::nanoTime);
    private final AtomicInteger value = new AtomicInteger();

    @Override
    public String name() {
      return "total-queue";
    }

    @Override
    public void prepare(Api api) throws InterruptedException {
      mustSql(api, "CREATE TABLE effects (id VARCHAR PRIMARY KEY, message VARCHAR)");
      // Nothing may die of being handed out often: that would not be a loss.
      must(api, "/api/queues/total", Map.of("attempts_max", 1_000_000));
      mustSql(api, "INSERT INTO effects (id, message) VALUES ('unused', 'unused')");
    }

    @Override
    public void step(int client, Api api, Random random) throws InterruptedException {
      if (random.nextBoolean()) {
        String message = "m" + value.incrementAndGet();
        History.Call call = history.call(client, "total", "send", message);
        Map<String, Object> body = new LinkedHashMap<>();
        body.put("key", "k" + random.nextInt(10));
        body.put("body", message);
        body.put("dedup_id", message);
        Answer answer = api.post("/api/queues/total/messages", body);
        if (answer.outcome() == Outcome.UNKNOWN) {
          // The same id again: it must not count twice.
          answer = api.post("/api/queues/total/messages", body);
          history.end(call, answer.outcome() == Outcome.DONE ? Outcome.DONE : Outcome.UNKNOWN, "");
          return;
        }
        history.end(call, answer.outcome(), "");
      } else {
        receive(client, api, random.nextLong());
      }
    }

    private boolean receive(int client, Api api, long salt) throws InterruptedException {
      History.Call call = history.call(client, "total", "receive", "");
      Answer answer =
          api.post(
              "/api/queues/total/receive",
              Map.of(
                  "consumer", "client-" + client, "max", 3, "visibility_ms", 5_000, "wait_ms", 0));
      history.end(call, answer.outcome(), Integer.toString(answer.body().size()));
      int row = 0;
      for (JsonNode message : answer.body()) {
        if (answer.outcome() != Outcome.DONE) {
          break;
        }
        Answer acknowledged =
            api.post(
                "/api/transactions",
                Map.of(
                    "steps",
                    List.of(
                        statement(
                            "INSERT INTO effects (id, message) VALUES (?, ?)",
                            salt + "-" + row++,
                            message.path("body").asText()),
                        Map.of(
                            "ack",
                            Map.of(
                                "queue",
                                "total",
                                "receipts",
                                List.of(message.path("receipt").asText()))))));
        if (acknowledged.outcome() == Outcome.UNKNOWN) {
          break;
        }
      }
      return answer.outcome() == Outcome.DONE && answer.body().size() == 0;
    }

    @Override
    public List<String> check(Api api) throws InterruptedException {
      // Empty for longer than a message can be invisible.
      long emptySinceNs = System.nanoTime();
      long giveUpNs = System.nanoTime() + 120_000_000_000L;
      Random random = new Random(1);
      while (System.nanoTime() - emptySinceNs < 8_000_000_000L) {
        if (!receive(0, api, random.nextLong())) {
          emptySinceNs = System.nanoTime();
        }
        if (System.nanoTime() > giveUpNs) {
          return List.of("the queue could not be drained in 120 s");
        }
        Thread.sleep(20);
      }
      List<String> effects = new ArrayList<>();
      for (JsonNode row :
          mustSql(api, "SELECT message FROM effects WHERE message <> 'unused'").path("rows")) {
        effects.add(row.path(0).asText());
      }
      return SetChecks.totalQueue(history.operations(), effects);
    }

    @Override
    public int operations() {
      return history.size();
    }

    @Override
    public List<String> history() {
      return history.operations().stream().map(History.Operation::toString).toList();
    }
  }

  /** Rows are inserted and must all be there. */
  static final class Elements implements Workload {
    private final History history = new History(System::nanoTime);
    private final AtomicInteger value = new AtomicInteger();
    private final String table;

    Elements(String table) {
      this.table = table;
    }

    @Override
    public String name() {
      return "set";
    }

    @Override
    public void prepare(Api api) throws InterruptedException {
      mustSql(api, "CREATE TABLE " + table + " (id INT PRIMARY KEY, client INT)");
    }

    @Override
    public void step(int client, Api api, Random random) throws InterruptedException {
      int element = value.incrementAndGet();
      History.Call call = history.call(client, "set", "add", Integer.toString(element));
      Answer answer =
          sql(api, "INSERT INTO " + table + " (id, client) VALUES (?, ?)", element, client);
      history.end(call, answer.outcome(), "");
    }

    @Override
    public List<String> check(Api api) throws InterruptedException {
      Set<String> there = new HashSet<>();
      for (int from = 0; from <= value.get(); from += 500) {
        mustSql(api, "SELECT id FROM " + table + " WHERE id >= ? AND id < ?", from, from + 500)
            .path("rows")
            .forEach(row -> there.add(row.path(0).asText()));
      }
      return SetChecks.set(history.operations(), there);
    }

    @Override
    public int operations() {
      return history.size();
    }

    @Override
    public List<String> history() {
      return history.operations().stream().map(History.Operation::toString).toList();
    }
  }

  /** For the report. */
  static String names(List<Workload> workloads) {
    return IntStream.range(0, workloads.size())
        .mapToObj(i -> workloads.get(i).name())
        .collect(Collectors.joining(", "));
  }
}
