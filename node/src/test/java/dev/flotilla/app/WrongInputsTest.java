package dev.flotilla.app;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * What the data plane says to requests that are not as they should be: at once, what is wrong and
 * what there is instead, nothing half done, and nothing of its own insides.
 */
class WrongInputsTest {

  private static final ObjectMapper JSON = new ObjectMapper();

  /** Of classes, the engine, and the JSON library. */
  private static final Pattern INSIDES =
      Pattern.compile(
          "\\b(com|org|java|javax|dev)\\.[a-z]+\\.|[a-z]\\[[a-zA-Z]+=|Exception|idHash|StreamRead|"
              + "Ignite|@[0-9a-f]{6,}|flotilla\\.[A-Z]|\\bnull\\b");

  @TempDir static Path folder;

  private static TestNode node;
  private static HttpClient http;

  record Answer(int status, JsonNode body) {
    String message() {
      return body.path("error").path("message").asText();
    }
  }

  @BeforeAll
  static void start() {
    node = TestNode.start(folder.resolve("node"));
    http = HttpClient.newHttpClient();
  }

  @AfterAll
  static void stop() {
    http.close();
    node.close();
  }

  private static Answer send(String method, String path, String body) throws Exception {
    HttpResponse<String> response =
        http.send(
            HttpRequest.newBuilder(URI.create(node.url() + path))
                .header("Authorization", "Bearer " + node.key())
                .method(method, HttpRequest.BodyPublishers.ofString(body))
                .build(),
            HttpResponse.BodyHandlers.ofString());
    return new Answer(response.statusCode(), json(response.body()));
  }

  private static JsonNode json(String text) {
    try {
      return text.isEmpty() ? JSON.missingNode() : JSON.readTree(text);
    } catch (IOException e) {
      return JSON.createObjectNode().put("text", text);
    }
  }

  private static JsonNode done(String method, String path, String body) throws Exception {
    Answer answer = send(method, path, body);
    assertThat(answer.status()).as(method + " " + path + ": " + answer.body()).isBetween(200, 299);
    return answer.body();
  }

  private static Answer refused(int status, String method, String path, String body, String... said)
      throws Exception {
    Answer answer = send(method, path, body);
    assertThat(answer.status()).as(method + " " + path + ": " + answer.body()).isEqualTo(status);
    assertThat(answer.message()).as(method + " " + path).isNotEmpty();
    for (String words : said) {
      assertThat(answer.message()).as(method + " " + path + " " + body).contains(words);
    }
    assertThat(INSIDES.matcher(answer.message()).find())
        .as("%s %s shows its insides: %s", method, path, answer.message())
        .isFalse();
    return answer;
  }

  @Test
  void aFieldThatNobodyKnowsIsNamedBesideThoseThatThereAre() throws Exception {
    done("POST", "/api/queues/known", "{}");
    String[][] wrong = {
      {"POST", "/api/locks/l/acquire", "{\"holder\":\"a\",\"wrong\":1}", "holder", "ttl_ms"},
      {"POST", "/api/locks/l/renew", "{\"holder\":\"a\",\"token\":1,\"wrong\":1}", "claim"},
      {"POST", "/api/locks/l/release", "{\"holder\":\"a\",\"token\":1,\"wrong\":1}", "token"},
      {"POST", "/api/caches/c", "{\"wrong\":1}", "max_entries"},
      {"POST", "/api/caches/c/k/increment", "{\"wrong\":1}", "by"},
      {"POST", "/api/caches/c/k/compare-and-set", "{\"value\":\"\",\"wrong\":1}", "expected"},
      {"POST", "/api/caches/c/get-all", "{\"keys\":[],\"wrong\":1}", "keys"},
      {"POST", "/api/caches/c/put-all", "{\"entries\":{},\"wrong\":1}", "entries"},
      {"POST", "/api/queues/new", "{\"wrong\":1}", "attempts_max"},
      {"POST", "/api/queues/known/messages", "{\"body\":\"x\",\"wrong\":1}", "dedup_id"},
      {
        "POST", "/api/queues/known/messages", "{\"messages\":[{\"body\":\"x\",\"wrong\":1}]}", "key"
      },
      {"POST", "/api/queues/known/receive", "{\"wrong\":1}", "visibility_ms"},
      {"POST", "/api/queues/known/ack", "{\"receipts\":[],\"wrong\":1}", "receipts"},
      {"POST", "/api/queues/known/nack", "{\"receipts\":[],\"wrong\":1}", "delay_ms"},
      {"POST", "/api/queues/known/redrive", "{\"wrong\":1}", "max"},
      {"POST", "/api/queues/known/replay", "{\"wrong\":1}", "from_ms"},
      {"POST", "/api/sql", "{\"statement\":\"SELECT 1\",\"wrong\":1}", "arguments"},
      {"POST", "/api/sql/describe", "{\"statement\":\"SELECT 1\",\"wrong\":1}", "statement"},
      {"POST", "/api/sql/explain", "{\"statement\":\"SELECT 1\",\"wrong\":1}", "arguments"},
      {"POST", "/api/sql/migrations", "{\"migrations\":[],\"wrong\":1}", "migrations"},
      {"POST", "/api/transactions", "{\"steps\":[{\"statement\":\"SELECT 1\"}],\"wrong\":1}", "id"},
      {
        "POST",
        "/api/transactions",
        "{\"steps\":[{\"statement\":\"SELECT 1\",\"wrong\":1}]}",
        "arguments"
      },
      {
        "POST",
        "/api/transactions",
        "{\"steps\":[{\"put\":{\"cache\":\"c\",\"key\":\"k\",\"value\":\"v\",\"wrong\":1}}]}",
        "value_base64"
      },
      {"POST", "/api/transactions/begin", "{\"wrong\":1}", "timeout_ms"},
      {"POST", "/api/sagas", "{\"saga\":\"s\",\"id\":\"i\",\"wrong\":1}", "parameters"},
      {"PUT", "/api/blobs/names/n", "{\"digest\":\"x\",\"wrong\":1}", "version"},
      {"POST", "/api/blobs/uploads", "{\"wrong\":1}", "bucket"},
      {"PUT", "/api/blobs/quotas/b", "{\"wrong\":1}", "bytes_max"},
      {"POST", "/api/indexes", "{\"name\":\"i\",\"wrong\":1}", "shards"},
      {"PUT", "/api/indexes/i/documents/d", "{\"text\":\"x\",\"wrong\":1}", "fields"},
      {"POST", "/api/indexes/i/documents", "{\"documents\":[],\"wrong\":1}", "documents"},
      {"POST", "/api/indexes/i/documents/get", "{\"ids\":[],\"wrong\":1}", "ids"},
      {"POST", "/api/indexes/i/search", "{\"wrong\":1}", "query"},
      {
        "POST",
        "/api/indexes/i/search",
        "{\"sort\":[{\"field\":\"a\",\"wrong\":1}]}",
        "sort[0].order"
      },
      {"POST", "/api/indexes", "{\"name\":\"i\",\"vector\":{\"wrong\":1}}", "vector.dimensions"},
      {"POST", "/api/transactions", "{\"steps\":[{\"wrong\":{}}]}", "steps[0].statement"},
      {"POST", "/api/jobs", "{\"job\":\"node_report\",\"wrong\":1}", "input"},
      {"POST", "/api/streams/s/batch", "{\"records\":[\"eA==\"],\"wrong\":1}", "records"},
      {"POST", "/api/streams/s/trim", "{\"before\":0,\"wrong\":1}", "before"},
      {"POST", "/api/usage", "{\"request_id\":\"r\",\"model\":\"m\",\"wrong\":1}", "time_ms"},
      {"POST", "/api/backups", "{\"name\":\"b\",\"wrong\":1}", "folder"},
      {"POST", "/api/locks/l/acquire", "{\"holder\":\"a\",\"fence\":1}", "holder"},
      {
        "POST",
        "/api/queues/known/ack",
        "{\"receipts\":[],\"fence\":{\"lock\":\"l\",\"token\":1,\"wrong\":1}}",
        "token"
      },
    };
    for (String[] each : wrong) {
      Answer answer = refused(400, each[0], each[1], each[2]);
      String name = each[2].contains("wrong") ? "wrong" : "fence";
      assertThat(answer.message()).as(each[1] + " " + each[2]).contains(name, each[3]);
      assertThat(answer.body().at("/error/code").asText())
          .as(each[1] + " " + each[2])
          .isEqualTo("unknown_parameter");
      assertThat(answer.body().at("/error/param").asText())
          .as(each[1] + " " + each[2])
          .endsWith(name);
    }
    assertThat(send("GET", "/api/queues/new", "").status()).isEqualTo(404);
    assertThat(send("GET", "/api/caches/c", "").status()).isEqualTo(404);
    assertThat(send("GET", "/api/streams/s", "").status()).isEqualTo(404);
  }

  @Test
  void smallSlipsAreNamedInWordsOfOurs() throws Exception {
    done("POST", "/api/queues/slips", "{}");
    refused(
        400,
        "POST",
        "/api/queues/slips/messages",
        "{\"body\":\"x\",\"dedup_id\":\"\"}",
        "dedup_id must not be empty");
    refused(400, "GET", "/api/logs?query=(a", "", "the query cannot be understood");
    done("GET", "/api/logs?from=2026-11-30&to=2026-12-01T00:00:00Z", "");
    refused(400, "GET", "/api/logs?from=yesterday", "", "from must be", "2026-11-24T10:00:00Z");
    done(
        "POST",
        "/api/indexes",
        "{\"name\":\"slips\",\"fields\":{\"author\":{\"type\":\"keyword\"}}}");
    refused(
        400,
        "POST",
        "/api/indexes/slips/search",
        "{\"query\":\"x\",\"highlight\":[\"autor\"]}",
        "highlight: this index has no field 'autor'",
        "author");
    refused(
        400,
        "POST",
        "/api/indexes/slips/search",
        "{\"query\":\"x\",\"return_fields\":[\"text\",\"autor\"]}",
        "return_fields: this index has no field 'autor'");
    done(
        "POST",
        "/api/indexes/slips/search",
        "{\"query\":\"x\",\"highlight\":[\"text\"],\"return_fields\":[\"text\",\"author\"]}");
  }

  @Test
  void whatIsMissingIsNamedAsMissing() throws Exception {
    done("POST", "/api/sql", "{\"statement\":\"CREATE TABLE split (k INT PRIMARY KEY)\"}");
    done("POST", "/api/queues/missing", "{}");
    String[][] missing = {
      {"POST", "/api/locks/l/renew", "{\"holder\":\"a\"}", "token"},
      {"POST", "/api/locks/l/release", "{\"holder\":\"a\"}", "token"},
      {"POST", "/api/locks/l/acquire", "{}", "holder"},
      {"POST", "/api/locks/l/acquire", "{\"holder\":\"a\",\"mode\":\"permit\"}", "permits"},
      {"POST", "/api/queues/missing/ack", "{}", "receipts"},
      {"POST", "/api/queues/missing/nack", "{}", "receipts"},
      {"POST", "/api/transactions", "{}", "steps"},
      {"POST", "/api/jobs", "{\"input\":{}}", "job"},
      {"PUT", "/api/blobs/uploads/u", "x", "offset"},
      {
        "POST",
        "/api/sql/migrations",
        "{\"migrations\":[{\"name\":\"n\",\"script\":\"s\"}]}",
        "migrations[0].version"
      },
      {"POST", "/api/streams/s/trim", "{}", "before"},
      {"POST", "/api/caches/c/k/compare-and-set", "{}", "value"},
      {"POST", "/api/tables/split/split", "{}", "at"},
      {"POST", "/api/tables/split/move", "{}", "shard"},
      {
        "POST",
        "/api/queues/missing/ack",
        "{\"receipts\":[],\"fence\":{\"lock\":\"l\"}}",
        "fence.token"
      },
    };
    for (String[] each : missing) {
      Answer answer = refused(400, each[0], each[1], each[2], each[3] + " is required");
      JsonNode error = answer.body().path("error");
      assertThat(error.path("code").asText()).as(each[1]).isEqualTo("missing_required_parameter");
      assertThat(error.path("param").asText()).as(each[1]).isEqualTo(each[3]);
    }
  }

  /** By such locks the cluster's own parts take turns. */
  @Test
  void locksOfTheClustersOwnNamesAreRefused() throws Exception {
    for (String step : List.of("acquire", "renew", "release")) {
      refused(
          400,
          "POST",
          "/api/locks/flotilla.backups/" + step,
          "{\"holder\":\"a\",\"token\":1}"
              .replace(step.equals("acquire") ? ",\"token\":1" : "-", ""),
          "must not begin with flotilla.");
    }
    done("GET", "/api/locks/flotilla.backups", "");
    done("POST", "/api/locks/flotillas/acquire", "{\"holder\":\"a\"}");
  }

  @Test
  void aParameterOfTheAddressThatNobodyKnowsIsNamedBesideThoseThatThereAre() throws Exception {
    done("PUT", "/api/caches/addressed/k", "v");
    for (String[] each :
        new String[][] {
          {"GET", "/api/logs?wrong=1", "level"},
          {"GET", "/api/streams/s?wrong=1", "wait_ms"},
          {"POST", "/api/streams/s?wrong=1", "allow_stale"},
          {"PUT", "/api/caches/addressed/k?wrong=1", "ttl_ms"},
          {"GET", "/api/caches/addressed/k?ttl_ms=1", "allow_stale"},
          {"GET", "/api/blobs?wrong=1", "prefix"},
          {"POST", "/api/blobs?wrong=1", "bucket"},
          {"GET", "/api/queues?wrong=1", "allow_stale"},
          {"PUT", "/api/indexes/i/documents/d?wrong=1", "refresh"},
          {"GET", "/api/jobs/j/rows?wrong=1", "limit"},
          {"GET", "/api/usage?wrong=1", "by"},
          {"POST", "/api/sql?wrong=1", "allow_stale"},
        }) {
      Answer answer = refused(400, each[0], each[1], "{}");
      assertThat(answer.message()).as(each[1]).contains(each[2]);
      assertThat(answer.body().path("error").path("param").asText())
          .isEqualTo(each[1].contains("wrong") ? "wrong" : "ttl_ms");
    }
    assertThat(done("GET", "/api/caches/addressed/k", "").path("text").asText()).isEqualTo("v");
  }

  @Test
  void aTransactionRepeatedWithOtherStepsIsRefusedAndTheFirstOnesRecordStays() throws Exception {
    done("POST", "/api/caches/ledger", "{}");
    String first =
        "{\"id\":\"pay-1\",\"steps\":[{\"put\":{\"cache\":\"ledger\",\"key\":\"a\",\"value\":\"1\"}},"
            + "{\"get\":{\"cache\":\"ledger\",\"key\":\"a\"}}]}";
    JsonNode done = done("POST", "/api/transactions", first);
    JsonNode record = done("GET", "/api/transactions/pay-1", "");
    assertThat(record.path("steps")).hasSize(2);
    assertThat(record.path("participants")).isNotEmpty();

    JsonNode again = done("POST", "/api/transactions", first);
    assertThat(again.path("repeated").asBoolean()).isTrue();
    assertThat(again.path("results")).isEqualTo(done.path("results"));
    assertThat(done("GET", "/api/transactions/pay-1", "")).isEqualTo(record);

    refused(
        409,
        "POST",
        "/api/transactions",
        first.replace("\"value\":\"1\"", "\"value\":\"2\""),
        "pay-1",
        "other steps");
    assertThat(done("GET", "/api/caches/ledger/a", "").asText()).isEqualTo("1");
    assertThat(done("GET", "/api/transactions/pay-1", "")).isEqualTo(record);
    int listed = 0;
    for (JsonNode each : done("GET", "/api/transactions", "").path("transactions")) {
      listed += each.path("id").asText().equals("pay-1") ? 1 : 0;
    }
    assertThat(listed).isEqualTo(1);
  }

  @Test
  void aTransactionOpenAcrossCallsHasItsStepsInItsRecordAndARepeatLeavesThem() throws Exception {
    done("POST", "/api/caches/open", "{}");
    done("POST", "/api/transactions/begin", "{\"id\":\"open-1\"}");
    String put = "{\"put\":{\"cache\":\"open\",\"key\":\"a\",\"value\":\"1\"}}";
    done("POST", "/api/transactions/open-1/steps", put);
    done("POST", "/api/transactions/open-1/commit", "{}");
    JsonNode record = done("GET", "/api/transactions/open-1", "");
    assertThat(record.path("steps")).hasSize(1);
    assertThat(record.path("participants")).isNotEmpty();
    assertThat(
            done("POST", "/api/transactions/begin", "{\"id\":\"open-1\"}")
                .path("repeated")
                .asBoolean())
        .isTrue();
    assertThat(done("GET", "/api/transactions/open-1", "")).isEqualTo(record);
    refused(
        409, "POST", "/api/transactions", "{\"id\":\"open-1\",\"steps\":[" + put + "]}", "open-1");
  }

  @Test
  void aStepThatIsNotWellFormedIsRefusedBeforeAnythingRuns() throws Exception {
    for (String steps :
        List.of(
            "[1]",
            "[{}]",
            "[{\"put\":1}]",
            "[{\"put\":{\"cache\":\"c\",\"key\":\"k\"}}]",
            "[{\"statement\":1}]",
            "[{\"statement\":\"SELECT 1\",\"arguments\":1}]",
            "[{\"ack\":{\"queue\":\"q\"}}]",
            "[{\"ack\":{\"queue\":\"q\",\"receipts\":[1]}}]",
            "[{\"send\":{\"queue\":\"q\",\"key\":\"k\",\"body\":\"a\",\"body_base64\":\"YQ==\"}}]",
            "[{\"send\":{\"queue\":\"q\",\"key\":\"k\",\"body_base64\":\"!\"}}]")) {
      refused(400, "POST", "/api/transactions", "{\"steps\":" + steps + "}", "step 1");
    }
    refused(
        400,
        "POST",
        "/api/transactions",
        "{\"steps\":[{\"statement\":\"SELECT 1\",\"get\":{\"cache\":\"c\",\"key\":\"k\"}}]}",
        "steps[0].get");
    refused(
        404,
        "POST",
        "/api/transactions",
        "{\"steps\":[{\"get\":{\"cache\":\"nobody-made-it\",\"key\":\"k\"}}]}",
        "step 1",
        "nobody-made-it");
  }

  @Test
  void aSearchOfWhatAnIndexHasNotSaysWhatItHas() throws Exception {
    done("PUT", "/api/indexes/words/documents/1?refresh=true", "{\"text\":\"a whale\"}");
    refused(400, "POST", "/api/indexes/words/search", "{\"vector\":[1,2]}", "no vectors");
    done(
        "PUT",
        "/api/indexes/mixed/documents/1?refresh=true",
        "{\"text\":\"a whale\",\"vector\":[1,2],\"fields\":{\"year\":1851,\"sea\":\"south\"}}");
    done("PUT", "/api/indexes/mixed/documents/2?refresh=true", "{\"vector\":[2,1]}");
    refused(400, "POST", "/api/indexes/mixed/search", "{\"vector\":[1,2,3]}", "3", "2", "vector");
    for (String filter :
        List.of(
            "{\"yaer\":1851}",
            "{\"yaer\":{\"gt\":1}}",
            "{\"exists\":\"yaer\"}",
            "{\"not\":{\"yaer\":1}}")) {
      refused(
          400,
          "POST",
          "/api/indexes/mixed/search",
          "{\"filter\":" + filter + "}",
          "yaer",
          "year",
          "sea");
    }
    JsonNode near = done("POST", "/api/indexes/mixed/search", "{\"vector\":[1,2]}");
    assertThat(near.path("hits")).hasSize(2);
    assertThat(near.path("total").asLong()).isEqualTo(2);
    JsonNode fused =
        done("POST", "/api/indexes/mixed/search", "{\"vector\":[1,2],\"query\":\"whale\"}");
    assertThat(fused.path("hits")).hasSize(2);
    assertThat(fused.path("total").asLong()).isEqualTo(2);
  }

  @Test
  void anEmptyDocumentIsRefused() throws Exception {
    for (String document : List.of("{}", "{\"text\":\"\"}", "{\"fields\":{}}", "{\"text\":null}")) {
      refused(400, "PUT", "/api/indexes/empty/documents/1", document, "text", "vector", "fields");
      refused(
          400,
          "POST",
          "/api/indexes/empty/documents",
          "{\"documents\":[{\"id\":\"1\","
              + document.substring(1).replace("}}", "}")
              + "}]}".replace(",}", "}"));
    }
    refused(400, "POST", "/api/indexes/empty/documents", "{\"documents\":[]}", "documents");
    assertThat(send("GET", "/api/indexes/empty", "").status()).isEqualTo(404);
  }

  @Test
  void aStreamIsNotTrimmedBehindItsEndNorAppendedNothing() throws Exception {
    refused(400, "POST", "/api/streams/tape", "", "nothing");
    refused(400, "POST", "/api/streams/tape/batch", "{\"records\":[]}", "records");
    refused(400, "POST", "/api/streams/tape/batch", "{\"records\":[\"\"]}", "nothing");
    refused(400, "POST", "/api/streams/tape/batch", "{\"records\":[1]}", "records");
    assertThat(send("GET", "/api/streams/tape", "").status()).isEqualTo(404);
    for (String record : List.of("a", "b", "c")) {
      done("POST", "/api/streams/tape", record);
    }
    refused(400, "POST", "/api/streams/tape/trim", "{\"before\":4}", "4", "3", "tape");
    refused(400, "POST", "/api/streams/tape/trim", "{\"before\":-1}", "before");
    assertThat(done("GET", "/api/streams/tape", "").path("records")).hasSize(3);
    assertThat(done("POST", "/api/streams/tape/trim", "{\"before\":3}").path("first").asLong())
        .isEqualTo(3);
  }

  @Test
  void aQueueIsMadeBySendingAndByNothingElse() throws Exception {
    String receipts = "{\"receipts\":[\"x\"]}";
    for (String[] each :
        new String[][] {
          {"POST", "/api/queues/absent/receive", "{}"},
          {"POST", "/api/queues/absent/ack", receipts},
          {"POST", "/api/queues/absent/nack", receipts},
          {"POST", "/api/queues/absent/redrive", "{}"},
          {"POST", "/api/queues/absent/replay", "{}"},
          {"GET", "/api/queues/absent/dead", ""},
          {"GET", "/api/queues/absent", ""},
          {"DELETE", "/api/queues/absent", ""},
        }) {
      refused(404, each[0], each[1], each[2], "no queue absent", "send to it");
    }
    assertThat(done("GET", "/api/queues", "").toString()).doesNotContain("absent");
    refused(
        400,
        "POST",
        "/api/queues/absent/messages",
        "{\"body\":\"a\",\"body_base64\":\"YQ==\"}",
        "body",
        "body_base64");
    refused(400, "POST", "/api/queues/absent/messages", "{\"messages\":[]}", "messages");
    refused(400, "POST", "/api/queues/absent/messages", "{\"messages\":[1]}", "messages[0]");
    refused(
        400,
        "POST",
        "/api/queues/absent/messages",
        "{\"messages\":[{\"body\":\"a\"}],\"body\":\"b\"}",
        "body",
        "messages");
    assertThat(done("GET", "/api/queues", "").toString()).doesNotContain("absent");
    done("POST", "/api/queues/absent/messages", "{\"body\":\"a\"}");
    assertThat(done("POST", "/api/queues/absent/receive", "{}")).hasSize(1);
    refused(
        400,
        "POST",
        "/api/queues/absent/receive",
        "{\"group\":\"a group\"}",
        "consumer group",
        "a group",
        "letters");
    refused(400, "POST", "/api/queues/absent/receive", "{\"group\":\"\"}", "consumer group");
    refused(400, "POST", "/api/queues/absent/replay", "{\"group\":\"a/b\"}", "consumer group");
    refused(400, "POST", "/api/queues/absent/ack", receipts, "receipt");
  }

  @Test
  void aJobIsCheckedBeforeItIsTaken() throws Exception {
    int before = done("GET", "/api/jobs", "").size();
    for (String[] each :
        new String[][] {
          {"count_words", "{}", "blob"},
          {"count_words", "[]", "object"},
          {"count_words", "\"text\"", "object"},
          {"count_words", "{\"lines\":\"text\"}", "lines"},
          {"count_words", "{\"lines\":[1]}", "lines[0]"},
          {"count_words", "{\"cache\":\"nobody-made-it\"}", "nobody-made-it"},
          {"count_words", "{\"cache\":1}", "cache"},
          {"count_words", "{\"blob\":\"sha256:abc\"}", "digest"},
          {"count_words", "{\"blob\":\"sha256:" + "0".repeat(64) + "\"}", "no blob"},
          {"count_words", "{\"lines\":[\"a\"],\"cache\":\"c\"}", "one of"},
          {"count_words", "{\"lines\":[\"a\"],\"split_bytes\":1}", "split_bytes"},
          {"count_words", "{\"lines\":[\"a\"],\"wrong\":1}", "wrong"},
          {"deduplicate", "{\"wrong\":1}", "wrong"},
          {"node_report", "{\"wrong\":1}", "wrong"},
          {"embed", "{\"lines\":[\"a\"]}", "model"},
          {"embed", "{\"lines\":[\"a\"],\"model\":\"m\"}", "index"},
          {"embed", "{\"lines\":[\"a\"],\"model\":\"none\",\"index\":\"i\"}", "none"},
          {"embed", "{\"lines\":[\"a\"],\"model\":\"none\",\"index\":\"a b\"}", "a b"},
          {"unheard_of", "{}", "count_words"},
        }) {
      refused(
          400,
          "POST",
          "/api/jobs",
          "{\"job\":\"" + each[0] + "\",\"input\":" + each[1] + "}",
          each[2]);
    }
    assertThat(done("GET", "/api/jobs", "")).hasSize(before);
    assertThat(done("POST", "/api/jobs", "{\"job\":\"count_words\",\"input\":{\"lines\":[]}}"))
        .isNotEmpty();
  }

  @Test
  void aBackupToAFolderThatCannotBeWrittenIsRefusedBeforeAnythingStarts() throws Exception {
    Path file = Files.writeString(folder.resolve("a-file"), "x");
    long startNs = System.nanoTime();
    for (String[] each :
        new String[][] {
          {file.toString(), "is no folder"},
          {file + "/below", "is no folder"},
          {"/proc/flotilla", "/proc/flotilla"},
          {"relative", "absolute"},
        }) {
      refused(
          400,
          "POST",
          "/api/backups",
          "{\"name\":\"unwritable\",\"folder\":\"" + each[0] + "\"}",
          each[1]);
    }
    assertThat(System.nanoTime() - startNs).isLessThan(10_000_000_000L);
    assertThat(done("GET", "/api/backups", "")).isEmpty();
    refused(404, "POST", "/api/backups/none/points", "{}", "none");
    refused(404, "POST", "/api/backups/none/restore", "{}", "none");
    refused(404, "DELETE", "/api/backups/none", "", "none");
    refused(
        400, "POST", "/api/backups/none/restore", "{\"folder\":\"" + file + "\"}", "is no folder");
  }

  @Test
  void noErrorShowsTheInsides() throws Exception {
    done("PUT", "/api/caches/insides/text", "no number");
    done("POST", "/api/queues/insides", "{}");
    List<String[]> wrong = new ArrayList<>();
    for (String body :
        List.of("{", "[]", "1", "", "nul", "{\"a\":1,\"a\":2}", "{\"a\":1}{}", "{'a':1}")) {
      for (String path :
          List.of(
              "/api/locks/l/acquire",
              "/api/caches/insides",
              "/api/queues/insides/messages",
              "/api/transactions",
              "/api/transactions/none/steps",
              "/api/jobs",
              "/api/indexes",
              "/api/indexes/insides/search",
              "/api/backups")) {
        wrong.add(new String[] {"POST", path, body});
      }
    }
    for (String[] each :
        new String[][] {
          {"POST", "/api/caches/insides", "{\"max_entries\":5}"},
          {"POST", "/api/caches/insides", "{\"mode\":1}"},
          {"POST", "/api/caches/insides", "{\"store\":\"none\"}"},
          {"POST", "/api/caches/a%20b", "{}"},
          {"POST", "/api/caches/insides/text/increment", "{}"},
          {"POST", "/api/caches/insides/text/increment", "{\"by\":1.5}"},
          {"PUT", "/api/caches/insides/k?ttl_ms=-1", "v"},
          {"PUT", "/api/caches/insides/k?ttl_ms=99999999999999999", "v"},
          {"PUT", "/api/caches/insides/" + "k".repeat(1025), "v"},
          {"POST", "/api/queues/insides", "{\"partitions\":2}"},
          {"POST", "/api/queues/a%20b/messages", "{\"body\":\"x\"}"},
          {"POST", "/api/queues/insides/messages", "{\"body\":1}"},
          {"POST", "/api/queues/insides/messages", "{\"body\":\"x\",\"priority\":10}"},
          {"POST", "/api/queues/insides/messages", "{\"messages\":{}}"},
          {"POST", "/api/queues/insides/ack", "{\"receipts\":[\"no-receipt\"]}"},
          {"POST", "/api/queues/insides/nack", "{\"receipts\":[\"0.0.0\"]}"},
          {"POST", "/api/locks/a%20b/acquire", "{\"holder\":\"h\"}"},
          {"GET", "/api/locks/a%20b", ""},
          {"POST", "/api/locks/l/release", "{\"holder\":\"h\",\"token\":7}"},
          {"GET", "/api/transactions/none", ""},
          {"GET", "/api/transactions/a%20b", ""},
          {"POST", "/api/transactions", "{\"mode\":\"none\",\"steps\":[]}"},
          {"POST", "/api/transactions/none/commit", "{}"},
          {"GET", "/api/sagas/none", ""},
          {"POST", "/api/sagas", "{\"saga\":\"none\",\"id\":\"a\"}"},
          {"POST", "/api/sagas", "{\"saga\":\"none\",\"id\":\"a\",\"parameters\":1}"},
          {"GET", "/api/blobs/none", ""},
          {"GET", "/api/blobs/sha256:zz", ""},
          {"GET", "/api/blobs?limit=x", ""},
          {"GET", "/api/blobs?bucket=a%20b", ""},
          {"PUT", "/api/blobs/names/n", "{\"digest\":\"none\"}"},
          {"PUT", "/api/blobs/names/n", "{\"digest\":\"sha256:" + "0".repeat(64) + "\"}"},
          {"GET", "/api/blobs/names/none", ""},
          {"GET", "/api/blobs/uploads/none", ""},
          {"PUT", "/api/blobs/uploads/none?offset=0", "x"},
          {"PUT", "/api/blobs/uploads/none?offset=x", "x"},
          {"POST", "/api/blobs/uploads/none/complete", "{}"},
          {"DELETE", "/api/blobs/sha256:" + "0".repeat(64), ""},
          {"GET", "/api/indexes/none", ""},
          {"GET", "/api/indexes/a%20b", ""},
          {"DELETE", "/api/indexes/none", ""},
          {"POST", "/api/indexes", "{\"name\":\"a b\"}"},
          {"POST", "/api/indexes", "{\"name\":\"i\",\"fields\":{\"a\":1}}"},
          {"POST", "/api/indexes", "{\"name\":\"i\",\"fields\":{\"a\":{\"type\":\"x\"}}}"},
          {"POST", "/api/indexes", "{\"name\":\"i\",\"analyzer\":\"x\"}"},
          {"PUT", "/api/indexes/i/documents/1", "{\"text\":1}"},
          {"PUT", "/api/indexes/i/documents/1", "{\"fields\":{\"a\":{\"b\":1}}}"},
          {"PUT", "/api/indexes/i/documents/1", "{\"fields\":{\"a b\":1}}"},
          {"PUT", "/api/indexes/i/documents/1", "{\"vector\":[]}"},
          {"PUT", "/api/indexes/i/documents/1", "{\"vector\":\"x\"}"},
          {"PUT", "/api/indexes/i/documents/1?refresh=x", "{\"text\":\"x\"}"},
          {"POST", "/api/indexes/none/search", "{}"},
          {"POST", "/api/indexes/i/documents", "{\"documents\":1}"},
          {"POST", "/api/indexes/i/documents", "{\"documents\":[1]}"},
          {"POST", "/api/jobs", "{\"job\":1}"},
          {"GET", "/api/jobs/none", ""},
          {"GET", "/api/jobs/none/rows?limit=x", ""},
          {"GET", "/api/jobs/none/rows?limit=0", ""},
          {"DELETE", "/api/jobs/none", ""},
          {"GET", "/api/logs?from=x", ""},
          {"GET", "/api/logs?level=x", ""},
          {"GET", "/api/logs?limit=x", ""},
          {"GET", "/api/logs?limit=0", ""},
          {"GET", "/api/logs?query=(", ""},
          {"GET", "/api/logs?query=a:%5B1", ""},
          {"GET", "/api/logs?node=none", ""},
          {"GET", "/api/streams/none", ""},
          {"GET", "/api/streams/a%20b", ""},
          {"GET", "/api/streams/none?from=x", ""},
          {"GET", "/api/streams/none?max=0", ""},
          {"POST", "/api/streams/none/trim", "{\"before\":0}"},
          {"GET", "/api/usage?by=x", ""},
          {"GET", "/api/usage?from=x", ""},
          {"POST", "/api/backups", "{\"name\":\"a b\"}"},
          {"POST", "/api/backup-prunes", "{\"older_than_ms\":-1}"},
          {"GET", "/api/tables/none/sharding", ""},
          {"GET", "/api/tables/none/skew", ""},
          {"POST", "/api/tables/none/split", "{\"at\":1}"},
          {"POST", "/api/tables/none/move", "{\"shard\":0}"},
          {"POST", "/api/sharding", "{\"statement\":\"SELECT 1\"}"},
          {"GET", "/api/nothing", ""},
          {"PATCH", "/api/queues/insides", ""},
          {"GET", "/api/queues/%25zz", ""},
        }) {
      wrong.add(each);
    }
    String deep = "[".repeat(300);
    for (String[] each :
        new String[][] {
          {"POST", "/api/locks/l/acquire", "{\"holder\":" + deep},
          {"POST", "/api/locks/l/acquire", "{\"holder\":\"\\ud800\"}"},
          {"POST", "/api/locks/l/acquire", "{\"holder\":\"a\\qb\"}"},
          {"POST", "/api/locks/l/acquire", "{\"holder\":\"" + "h".repeat(5_000) + "\"}"},
          {"POST", "/api/locks/l/acquire", "{\"holder\":\"h\",\"ttl_ms\":1e400}"},
          {"POST", "/api/locks/l/acquire", "{\"holder\":\"h\",\"ttl_ms\":1}"},
          {"POST", "/api/locks/l/acquire", "{\"holder\":\"h\",\"mode\":\"x\"}"},
          {"POST", "/api/locks/l/acquire", "{\"holder\":\"h\",\"mode\":\"permit\"}"},
          {"POST", "/api/locks/l/acquire", "{\"holder\":\"h\u0000i\"}"},
          {"POST", "/api/caches/insides/k/compare-and-set", "{\"value\":\"!\"}"},
          {"POST", "/api/caches/insides/k/compare-and-set", "{\"value\":1}"},
          {"POST", "/api/caches/insides/put-all", "{\"entries\":{\"k\":1}}"},
          {"POST", "/api/caches/insides/put-all", "{\"entries\":{\"\":\"eA==\"}}"},
          {"POST", "/api/caches/insides/get-all", "{\"keys\":[\"\"]}"},
          {"POST", "/api/caches/insides/get-all", "{\"keys\":[1]}"},
          {"GET", "/api/caches/none/k", ""},
          {"DELETE", "/api/caches/none", ""},
          {"GET", "/api/caches/flotilla.near/k", ""},
          {"PUT", "/api/caches/flotilla.near/k", "v"},
          {"POST", "/api/queues/insides/messages", "{\"body\":\"x\",\"delay_ms\":-1}"},
          {"POST", "/api/queues/insides/messages", "{\"body_base64\":\"!\"}"},
          {
            "POST",
            "/api/queues/insides/messages",
            "{\"body\":\"x\",\"key\":\"" + "k".repeat(2_000) + "\"}"
          },
          {
            "POST",
            "/api/queues/insides/messages",
            "{\"body\":\"x\",\"fence\":{\"lock\":\"a b\",\"token\":0}}"
          },
          {"POST", "/api/queues/insides/messages", "{\"body\":\"" + "x".repeat(300_000) + "\"}"},
          {"POST", "/api/queues/insides/receive", "{\"max\":0}"},
          {"POST", "/api/queues/insides/receive", "{\"visibility_ms\":1}"},
          {"POST", "/api/queues/insides/ack", "{\"receipts\":[]}"},
          {"POST", "/api/queues/insides/ack", "{\"receipts\":[\"default~0~0~1~42e72e42~0\"]}"},
          {"POST", "/api/queues/insides/ack", "{\"receipts\":[\"default~99~0~1~0~0\"]}"},
          {"POST", "/api/transactions", "{\"steps\":[]}"},
          {"POST", "/api/transactions", "{\"steps\":1}"},
          {
            "POST",
            "/api/transactions",
            "{\"id\":\"a b\",\"steps\":[{\"get\":{\"cache\":\"insides\",\"key\":\"k\"}}]}"
          },
          {
            "POST",
            "/api/transactions",
            "{\"steps\":[{\"put\":{\"cache\":\"insides\",\"key\":\"\",\"value\":\"v\"}}]}"
          },
          {
            "POST",
            "/api/transactions",
            "{\"mode\":\"optimistic\",\"steps\":[{\"statement\":\"SELECT 1\"}]}"
          },
          {
            "POST",
            "/api/transactions",
            "{\"steps\":[{\"ack\":{\"queue\":\"insides\",\"receipts\":[\"x\"]}}]}"
          },
          {
            "POST",
            "/api/transactions",
            "{\"steps\":[{\"send\":{\"queue\":\"none\",\"key\":\"k\",\"body\":\"b\"}}]}"
          },
          {"POST", "/api/transactions/begin", "{\"timeout_ms\":1}"},
          {"POST", "/api/transactions/begin", "{\"id\":\"a/b\"}"},
          {"GET", "/api/sagas/none?wait_ms=x", ""},
          {"PUT", "/api/blobs/names/a%20b", "{\"digest\":\"sha256:" + "0".repeat(64) + "\"}"},
          {"PUT", "/api/blobs/quotas/a%20b", "{\"bytes_max\":1}"},
          {"PUT", "/api/blobs/quotas/b", "{\"bytes_max\":-1}"},
          {"POST", "/api/blobs?bucket=a%20b", "x"},
          {"POST", "/api/blobs/uploads", "{\"bucket\":\"a b\"}"},
          {"POST", "/api/indexes", "{\"name\":\"i\",\"shards\":0}"},
          {"POST", "/api/indexes", "{\"name\":\"i\",\"vector\":{\"dimensions\":5000}}"},
          {"POST", "/api/indexes", "{\"name\":\"i\",\"vector\":{\"similarity\":\"x\"}}"},
          {"PUT", "/api/indexes/i/documents/1", "{\"text\":\"x\",\"embed\":\"none\"}"},
          {"PUT", "/api/indexes/i/documents/1", "{\"text\":\"x\",\"embed\":1}"},
          {"PUT", "/api/indexes/i/documents/" + "i".repeat(600), "{\"text\":\"x\"}"},
          {"PUT", "/api/indexes/i/documents/1", "{\"text\":\"" + "x".repeat(1_100_000) + "\"}"},
          {"POST", "/api/indexes/i/documents/get", "{\"ids\":[1]}"},
          {"POST", "/api/indexes/i/documents/get", "{\"ids\":1}"},
          {"POST", "/api/jobs", "{\"job\":\"count_words\",\"input\":{\"blob\":\"x\"}}"},
          {"POST", "/api/streams/s/trim", "{}"},
          {"POST", "/api/streams/s/batch", "{\"records\":[\"!\"]}"},
          {"POST", "/api/usage", "{\"request_id\":\"r\"}"},
          {"POST", "/api/usage", "{\"request_id\":\"r\",\"model\":\"m\",\"prompt_tokens\":-1}"},
          {"POST", "/api/backups", "{\"name\":\"b\",\"folder\":\"/\\u0000\"}"},
          {"POST", "/api/sharding", "{\"statement\":\"CREATE TABLE x SHARD BY\"}"},
        }) {
      wrong.add(each);
    }
    List<String> shown = new ArrayList<>();
    for (String[] each : wrong) {
      HttpResponse<String> answer =
          http.send(
              HttpRequest.newBuilder(URI.create(node.url() + each[1]))
                  .header("Authorization", "Bearer " + node.key())
                  .method(each[0], HttpRequest.BodyPublishers.ofString(each[2]))
                  .build(),
              HttpResponse.BodyHandlers.ofString(StandardCharsets.UTF_8));
      String message = json(answer.body()).path("error").path("message").asText();
      boolean fault = answer.statusCode() < 400 || answer.statusCode() >= 500 || message.isEmpty();
      if (fault || INSIDES.matcher(message).find()) {
        String asked = String.join(" ", each);
        shown.add(
            (asked.length() > 200 ? asked.substring(0, 200) : asked)
                + " → "
                + answer.statusCode()
                + " "
                + answer.body());
      }
    }
    assertThat(shown).isEmpty();
  }
}
