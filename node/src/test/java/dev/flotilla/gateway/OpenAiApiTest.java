package dev.flotilla.gateway;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.openai.client.OpenAIClient;
import com.openai.client.okhttp.OpenAIOkHttpClient;
import com.openai.core.http.StreamResponse;
import com.openai.errors.NotFoundException;
import com.openai.errors.RateLimitException;
import com.openai.errors.SseException;
import com.openai.errors.UnauthorizedException;
import com.openai.models.chat.completions.ChatCompletion;
import com.openai.models.chat.completions.ChatCompletionChunk;
import com.openai.models.chat.completions.ChatCompletionCreateParams;
import com.openai.models.chat.completions.ChatCompletionStreamOptions;
import com.openai.models.completions.Completion;
import com.openai.models.completions.CompletionCreateParams;
import com.openai.models.models.Model;
import dev.flotilla.FlotillaException;
import dev.flotilla.Json;
import dev.flotilla.serve.Deployments.StageView;
import dev.flotilla.serve.Priority;
import dev.flotilla.text.JsonSchema;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class OpenAiApiTest {

  private TestGateway gateway;
  private OpenAIClient client;

  @BeforeEach
  void start() {
    gateway = new TestGateway();
    client =
        OpenAIOkHttpClient.builder()
            .baseUrl(gateway.uri("/v1").toString())
            .apiKey(gateway.key)
            .maxRetries(0)
            .responseValidation(true)
            .build();
  }

  @AfterEach
  void stop() {
    client.close();
    gateway.close();
  }

  private ChatCompletionCreateParams.Builder hello() {
    return ChatCompletionCreateParams.builder().model("tiny").addUserMessage("Hi");
  }

  // The client warns that seeds are only best effort at OpenAI; here they are exact.
  @SuppressWarnings("deprecation")
  @Test
  void theOfficialClientGetsAWholeAnswer() {
    ChatCompletion completion = client.chat().completions().create(hello().seed(5).build());
    ChatCompletion.Choice choice = completion.choices().getFirst();
    assertThat(choice.message().content()).contains("Hello!");
    assertThat(choice.finishReason()).isEqualTo(ChatCompletion.Choice.FinishReason.STOP);
    assertThat(completion.usage().orElseThrow().promptTokens()).isEqualTo("user: Hi\n".length());
    assertThat(completion.usage().orElseThrow().completionTokens()).isEqualTo(6);
    assertThat(completion.created()).isEqualTo(1_800_000_000);
    assertThat(gateway.generator.requests.getFirst().sampling().seed()).isEqualTo(5);
    assertThat(gateway.generator.requests.getFirst().maxTokens()).isEqualTo(200 - 9);
  }

  @Test
  void theOfficialClientStreamsAnAnswer() {
    gateway.generator.delayMs = 2;
    StringBuilder text = new StringBuilder();
    int roles = 0;
    int reasons = 0;
    long total = 0;
    try (StreamResponse<ChatCompletionChunk> stream =
        client
            .chat()
            .completions()
            .createStreaming(
                hello()
                    .streamOptions(ChatCompletionStreamOptions.builder().includeUsage(true).build())
                    .build())) {
      for (ChatCompletionChunk chunk : (Iterable<ChatCompletionChunk>) stream.stream()::iterator) {
        for (ChatCompletionChunk.Choice choice : chunk.choices()) {
          text.append(choice.delta().content().orElse(""));
          roles += choice.delta().role().isPresent() ? 1 : 0;
          reasons += choice.finishReason().isPresent() ? 1 : 0;
        }
        if (chunk.usage().isPresent()) {
          assertThat(chunk.choices()).isEmpty();
          total = chunk.usage().get().totalTokens();
        }
      }
    }
    assertThat(text.toString()).isEqualTo("Hello!");
    assertThat(roles).isEqualTo(1);
    assertThat(reasons).isEqualTo(1);
    assertThat(total).isEqualTo(15);
  }

  @Test
  void theOfficialClientCompletesAndLists() {
    Completion completion =
        client
            .completions()
            .create(
                CompletionCreateParams.builder().model("tiny").prompt("Once").echo(true).build());
    assertThat(completion.choices().getFirst().text()).isEqualTo("OnceHello!");
    assertThat(client.models().list().data().stream().map(Model::id)).containsExactly("tiny");
    assertThat(client.models().retrieve("tiny").created()).isEqualTo(1_700_000_000);
  }

  @Test
  void theOfficialClientSeesErrorsAsItsOwn() {
    assertThatThrownBy(() -> client.chat().completions().create(hello().model("absent").build()))
        .isInstanceOf(NotFoundException.class)
        .hasMessageContaining("Served: tiny");
    gateway.generator.refuse = true;
    gateway.generator.failure =
        Optional.of(
            new FlotillaException(FlotillaException.Code.BUSY, "the queue is full", "Try again."));
    assertThatThrownBy(() -> client.chat().completions().create(hello().build()))
        .isInstanceOf(RateLimitException.class);
    OpenAIClient stranger = client.withOptions(options -> options.apiKey("fk-wrong"));
    assertThatThrownBy(() -> stranger.models().list()).isInstanceOf(UnauthorizedException.class);
  }

  @Test
  void theOfficialClientSeesAnErrorThatComesInsideAStream() {
    gateway.generator.delayMs = 2;
    gateway.generator.failAfter = 3;
    gateway.generator.failure =
        Optional.of(
            new FlotillaException(
                FlotillaException.Code.UNAVAILABLE, "two nodes were lost", "Try again."));
    StringBuilder text = new StringBuilder();
    assertThatThrownBy(
            () -> {
              try (StreamResponse<ChatCompletionChunk> stream =
                  client.chat().completions().createStreaming(hello().build())) {
                stream.stream()
                    .forEach(c -> text.append(c.choices().getFirst().delta().content().orElse("")));
              }
            })
        .isInstanceOf(SseException.class)
        .hasMessageContaining("two nodes were lost");
    assertThat(text.toString()).isEqualTo("Hel");
  }

  @Test
  void anErrorBeforeTheFirstTokenHasItsOwnStatusEvenWhenStreaming() {
    gateway.generator.failAfter = 0;
    gateway.generator.failure =
        Optional.of(
            new FlotillaException(
                FlotillaException.Code.UNAVAILABLE, "no replica is ready", "Try again."));
    HttpResponse<String> response = chat("\"stream\":true");
    assertThat(response.statusCode()).isEqualTo(503);
    assertThat(response.headers().firstValue("Retry-After")).isPresent();
    assertThat(TestGateway.json(response).at("/error/message").asText())
        .contains("no replica is ready");
  }

  private HttpResponse<String> chat(String more) {
    return gateway.post(
        "/v1/chat/completions",
        "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"
            + (more.isEmpty() ? "" : "," + more)
            + "}");
  }

  private static List<JsonNode> events(HttpResponse<String> response) {
    List<String> data =
        response
            .body()
            .lines()
            .filter(l -> l.startsWith("data: "))
            .map(l -> l.substring(6))
            .toList();
    assertThat(data.getLast()).isEqualTo("[DONE]");
    return data.subList(0, data.size() - 1).stream()
        .map(d -> Json.read(d.getBytes(StandardCharsets.UTF_8), JsonNode.class))
        .toList();
  }

  private static String streamed(HttpResponse<String> response, int choice) {
    StringBuilder text = new StringBuilder();
    for (JsonNode event : events(response)) {
      for (JsonNode c : event.get("choices")) {
        if (c.get("index").asInt() == choice) {
          text.append(c.at("/delta/content").asText(""));
        }
      }
    }
    return text.toString();
  }

  @Test
  void aStreamIsExactlyAsClientsExpectIt() {
    HttpResponse<String> response =
        chat("\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    assertThat(response.headers().firstValue("Content-Type"))
        .hasValue("text/event-stream; charset=utf-8");
    List<JsonNode> events = events(response);
    assertThat(events.getFirst().at("/choices/0/delta/role").asText()).isEqualTo("assistant");
    assertThat(events.getLast().get("choices")).isEmpty();
    assertThat(events.getLast().at("/usage/completion_tokens").asInt()).isEqualTo(6);
    JsonNode closing = events.get(events.size() - 2);
    assertThat(closing.at("/choices/0/finish_reason").asText()).isEqualTo("stop");
    assertThat(closing.at("/choices/0/delta").isObject()).isTrue();
    assertThat(events.stream().filter(e -> e.at("/choices/0/finish_reason").isTextual()))
        .hasSize(1);
    assertThat(events.stream().map(e -> e.get("id").asText()).distinct()).hasSize(1);
  }

  @Test
  void aStopStringEndsTheTextWhereverTokensAreCut() {
    gateway.generator.answer = r -> TestText.tokens("one two END three");
    for (String more : List.of("\"stop\":\"END\"", "\"stop\":[\"xyz\",\"EN\",\"END\"]")) {
      JsonNode answer = TestGateway.json(chat(more));
      assertThat(answer.at("/choices/0/message/content").asText()).isEqualTo("one two ");
      assertThat(answer.at("/choices/0/finish_reason").asText()).isEqualTo("stop");
      assertThat(streamed(chat(more + ",\"stream\":true"), 0)).isEqualTo("one two ");
    }
  }

  @Test
  void whatOnlyLooksLikeAStopStringIsDelivered() {
    gateway.generator.answer = r -> TestText.tokens("one EN EN");
    assertThat(streamed(chat("\"stop\":\"END\",\"stream\":true"), 0)).isEqualTo("one EN EN");
  }

  @Test
  void aStopStringStopsTheWork() throws Exception {
    gateway.generator.answer = r -> new int[0];
    gateway.generator.delayMs = 1;
    assertThat(TestGateway.json(chat("\"stop\":\"aaa\"")).at("/choices/0/message/content").asText())
        .isEmpty();
    assertThat(TestGateway.soon(() -> gateway.generator.running.get() == 0)).isTrue();
    assertThat(gateway.generator.emitted.get()).isLessThan(100);
  }

  @Test
  void charactersThatSpanTokensArriveWhole() {
    gateway.generator.answer = r -> TestText.tokens("ä€😀");
    HttpResponse<String> response = chat("\"stream\":true");
    assertThat(streamed(response, 0)).isEqualTo("ä€😀");
    assertThat(response.body()).doesNotContain("\ufffd");
  }

  @Test
  void severalChoicesHaveSeveralSeeds() {
    gateway.generator.answer = r -> TestText.tokens(r.id().endsWith("-0") ? "first" : "second one");
    JsonNode answer = TestGateway.json(chat("\"n\":2,\"seed\":7"));
    assertThat(answer.at("/choices/0/message/content").asText()).isEqualTo("first");
    assertThat(answer.at("/choices/1/message/content").asText()).isEqualTo("second one");
    assertThat(answer.at("/usage/completion_tokens").asInt()).isEqualTo(15);
    assertThat(gateway.generator.requests.stream().map(r -> r.sampling().seed()).distinct())
        .hasSize(2)
        .contains(7L);
    HttpResponse<String> stream = chat("\"n\":2,\"seed\":7,\"stream\":true");
    assertThat(streamed(stream, 0)).isEqualTo("first");
    assertThat(streamed(stream, 1)).isEqualTo("second one");
    assertThat(gateway.generator.requests.stream().map(r -> r.sampling().seed()).distinct())
        .as("the same seed gives the same choices")
        .hasSize(2);
  }

  @Test
  void aRequestRunsInTheNameOfItsKeyAndWithThePriorityItAsksFor() {
    for (String priority : List.of("high", "normal", "low")) {
      assertThat(chat("\"priority\":\"" + priority + "\"").statusCode()).isEqualTo(200);
    }
    assertThat(chat("\"priority\":null").statusCode()).isEqualTo(200);
    assertThat(gateway.generator.requests)
        .extracting(r -> r.claim().priority())
        .containsExactly(Priority.HIGH, Priority.NORMAL, Priority.LOW, Priority.NORMAL);
    assertThat(gateway.generator.requests)
        .extracting(r -> r.claim().tenant())
        .containsOnly("admin");
  }

  @Test
  void maxTokensCutsTheAnswer() {
    JsonNode answer = TestGateway.json(chat("\"max_completion_tokens\":3"));
    assertThat(answer.at("/choices/0/message/content").asText()).isEqualTo("Hel");
    assertThat(answer.at("/choices/0/finish_reason").asText()).isEqualTo("length");
  }

  @Test
  void requestsWithoutASeedGetDifferentOnesAndTheModelsOwnSampling() {
    gateway.deployments.metadata.put("general.sampling.temp", 0.25f);
    gateway.deployments.metadata.put("general.sampling.top_k", 40);
    chat("");
    chat("");
    assertThat(gateway.generator.requests.stream().map(r -> r.sampling().seed()).distinct())
        .hasSize(2);
    assertThat(gateway.generator.requests.getFirst().sampling().temperature()).isEqualTo(0.25f);
    assertThat(gateway.generator.requests.getFirst().sampling().topK()).isEqualTo(40);
    assertThat(gateway.deployments.metadataReads.get()).isEqualTo(1);
  }

  @Test
  void aPromptBeyondTheContextIsRefusedWithBothNumbers() {
    HttpResponse<String> response =
        gateway.post(
            "/v1/completions", "{\"model\":\"tiny\",\"prompt\":\"" + "x".repeat(200) + "\"}");
    assertThat(response.statusCode()).isEqualTo(400);
    JsonNode error = TestGateway.json(response).get("error");
    assertThat(error.get("code").asText()).isEqualTo("context_length_exceeded");
    assertThat(error.get("message").asText()).contains("200 tokens").contains("Shorten");
    assertThat(gateway.generator.requests).isEmpty();
  }

  @Test
  void contentMayBeAListOfTextParts() {
    HttpResponse<String> response =
        gateway.post(
            "/v1/chat/completions",
            """
            {"model":"tiny","user":"someone","metadata":{"a":"b"},"store":false,
             "messages":[{"role":"developer","content":"Be brief."},
              {"role":"user","content":[{"type":"text","text":"Hi "},{"type":"text","text":"there"}]}]}
            """);
    assertThat(response.statusCode()).isEqualTo(200);
    assertThat(gateway.generator.requests.getFirst().prompt())
        .isEqualTo(TestText.tokens("system: Be brief.\nuser: Hi there\n"));
  }

  @Test
  void whatAUserTypesIsNeverASpecialToken() {
    gateway.post("/v1/completions", "{\"model\":\"tiny\",\"prompt\":\"<|end|>\"}");
    assertThat(gateway.generator.requests.getFirst().prompt())
        .isEqualTo(TestText.tokens("<|end|>"));
    assertThat(gateway.generator.requests.getFirst().endTokens()).containsExactly(TestText.END);
  }

  @Test
  void aModelWithoutAChatTemplateSaysWhatToDo() {
    gateway.deployments.metadata.remove("tokenizer.chat_template");
    HttpResponse<String> response = chat("");
    assertThat(response.statusCode()).isEqualTo(400);
    assertThat(response.body()).contains("no chat template").contains("/v1/completions");
  }

  @Test
  void manyModelsShareASmallCacheOfTokenizers() {
    for (int i = 0; i < 12; i++) {
      gateway.deployments.add("tiny-" + i, 200, List.of(new StageView("node-a", 0, 1)));
    }
    for (int round = 0; round < 2; round++) {
      for (int i = 0; i < 12; i++) {
        assertThat(
                gateway
                    .post("/v1/completions", "{\"model\":\"tiny-" + i + "\",\"prompt\":\"x\"}")
                    .body())
            .contains("Hello!");
      }
    }
    assertThat(gateway.deployments.metadataReads.get()).isEqualTo(24);
  }

  @Test
  void promptsMayBeTokensAndMayBeSeveral() {
    JsonNode answer =
        TestGateway.json(
            gateway.post(
                "/v1/completions",
                "{\"model\":\"tiny\",\"prompt\":[\"ab\",[99,100,101]],\"n\":2,\"echo\":true}"));
    assertThat(answer.get("choices").findValuesAsText("text"))
        .containsExactly("abHello!", "abHello!", "cdeHello!", "cdeHello!");
    assertThat(answer.at("/usage/prompt_tokens").asInt()).isEqualTo(5);
  }

  @ParameterizedTest
  @CsvSource(
      delimiter = '|',
      textBlock =
          """
          temperature       | -1
          temperature       | 2.5
          temperature       | "hot"
          temperature       | 1e999
          temperature       | true
          top_p             | 1.1
          top_p             | []
          top_k             | -1
          top_k             | 1000000
          top_k             | 1.5
          seed              | "x"
          seed              | 1e3
          seed              | 99999999999999999999
          n                 | 0
          n                 | 17
          n                 | "2"
          max_tokens        | 0
          max_tokens        | -5
          max_tokens        | 2000000000
          max_tokens        | "many"
          max_completion_tokens | 201
          stop              | ""
          stop              | 5
          stop              | ["a","b","c","d","e"]
          stop              | [null]
          stream            | "yes"
          priority          | "urgent"
          priority          | "HIGH"
          priority          | ""
          priority          | 1
          stream_options    | {"include_usage":true}
          tools             | [{"type":"function"}]
          tool_choice       | "required"
          logprobs          | true
          top_logprobs      | 3
          logit_bias        | {"5":-100}
          response_format   | "json"
          response_format.type | RF:{}
          response_format.type | RF:{"type":"xml"}
          response_format.json_schema | RF:{"type":"json_schema"}
          response_format.json_schema.schema | RF:{"type":"json_schema","json_schema":{"name":"x"}}
          response_format.json_schema.schema | RF:{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"thing"}}}
          response_format.json_schema.schema | RF:{"type":"json_schema","json_schema":{"name":"x","schema":5}}
          response_format.schema | RF:{"type":"json_object","schema":{"not":{}}}
          grammar           | 5
          grammar           | "root ::= word"
          grammar           | "a ::= [x]"
          json_schema       | {"$ref":"#/nowhere"}
          json_schema       | "x"
          json_schema       | {"type":"object"},"grammar":"root ::= [a]"
          ignore_eos        | true,"grammar":"root ::= [a]"
          frequency_penalty | 0.5
          presence_penalty  | -0.5
          modalities        | ["audio"]
          model             | 5
          model             | null
          messages          | []
          messages          | "Hi"
          messages[0]       | MESSAGES:["Hi"]
          messages[0].role  | MESSAGES:[{"role":"robot","content":"x"}]
          messages[0].role  | MESSAGES:[{"role":"tool","content":"x"}]
          messages[0].content | MESSAGES:[{"role":"user"}]
          messages[0].content | MESSAGES:[{"role":"user","content":null}]
          messages[0].content | MESSAGES:[{"role":"user","content":5}]
          messages[0].content[0].type | MESSAGES:[{"role":"user","content":[{"type":"image_url"}]}]
          messages[0].content[0].text | MESSAGES:[{"role":"user","content":[{"type":"text"}]}]
          messages[0].content | MESSAGES:[{"role":"user","content":"\\ud800"}]
          """)
  void aFieldOutOfBoundsIsNamed(String field, String value) {
    String body =
        switch (field) {
          case "model" ->
              "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"model\":" + value + "}";
          case "messages" -> "{\"model\":\"tiny\",\"messages\":" + value + "}";
          default ->
              value.startsWith("MESSAGES:")
                  ? "{\"model\":\"tiny\",\"messages\":" + value.substring(9) + "}"
                  : value.startsWith("RF:")
                      ? "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"response_format\":"
                          + value.substring(3)
                          + "}"
                      : "{\"model\":\"tiny\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\""
                          + field
                          + "\":"
                          + value
                          + "}";
        };
    HttpResponse<String> response = gateway.post("/v1/chat/completions", body);
    assertThat(response.statusCode()).as(response.body()).isEqualTo(400);
    JsonNode error = TestGateway.json(response).get("error");
    assertThat(error.get("param").asText()).isEqualTo(field);
    assertThat(error.get("type").asText()).isEqualTo("invalid_request_error");
    assertThat(error.get("message").asText()).isNotEmpty();
    assertThat(gateway.generator.requests).isEmpty();
  }

  @Test
  void aSchemaOrAGrammarGoesWithEachChoice() {
    String schema =
        """
        {"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"]}""";
    String ofSchema =
        JsonSchema.grammar(Json.read(schema.getBytes(StandardCharsets.UTF_8), JsonNode.class))
            .source();
    Map<String, String> wanted = new LinkedHashMap<>();
    wanted.put(
        "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"x\",\"strict\":true,"
            + "\"schema\":"
            + schema
            + "}},\"n\":2,\"stream\":true",
        ofSchema);
    wanted.put("\"response_format\":{\"type\":\"json_object\"}", JsonSchema.anyObject().source());
    wanted.put(
        "\"response_format\":{\"type\":\"json_object\",\"schema\":" + schema + "}", ofSchema);
    wanted.put("\"json_schema\":" + schema, ofSchema);
    wanted.put("\"grammar\":\"root ::= [a-z]+\"", "root ::= [a-z]+");
    wanted.put("\"response_format\":{\"type\":\"text\"},\"grammar\":\"\"", "");
    wanted.forEach(
        (asked, grammar) -> {
          gateway.generator.requests.clear();
          HttpResponse<String> response = chat(asked);
          assertThat(response.statusCode()).as(response.body()).isEqualTo(200);
          assertThat(gateway.generator.requests)
              .hasSize(asked.contains("\"n\":2") ? 2 : 1)
              .allMatch(r -> r.grammar().orElse("").equals(grammar));
        });
  }

  @Test
  void valuesThatChangeNothingAreAccepted() {
    assertThat(
            chat("""
                    "tools":[],"tool_choice":"none","logprobs":false,"logit_bias":{},"n":null,
                    "response_format":{"type":"text"},"frequency_penalty":0,"presence_penalty":0.0,
                    "stop":null,"seed":null,"modalities":["text"],"parallel_tool_calls":false,"user":"u"
                    """)
                .statusCode())
        .isEqualTo(200);
  }

  @Test
  void malformedJsonIsRefusedWithItsPlace() {
    HttpResponse<String> response =
        gateway.post("/v1/chat/completions", "{\"model\":\"tiny\",\n  \"messages\": [}");
    assertThat(response.statusCode()).isEqualTo(400);
    assertThat(TestGateway.json(response).at("/error/message").asText()).contains("line 2, column");
    for (String body :
        List.of(
            "",
            "null",
            "[]",
            "5",
            "{\"model\":\"tiny\",\"model\":\"tiny\"}",
            "{\"model\":\"tiny\",\"temperature\":NaN}",
            "[".repeat(50_000),
            "{\"a\":".repeat(30_000),
            "{} {}",
            "{\"model\":\"tiny\"",
            "{\"model\":\"a\nb\"}")) {
      HttpResponse<String> refused = gateway.post("/v1/chat/completions", body);
      assertThat(refused.statusCode()).isEqualTo(400);
      assertThat(TestGateway.json(refused).at("/error/code").asText()).isEqualTo("invalid_json");
    }
  }

  @Test
  void strangeModelNamesAreNotFound() {
    for (String name : List.of("../etc/passwd", "%2e%2e", "\\u0000", "x".repeat(10_000))) {
      assertThat(
              gateway
                  .post("/v1/completions", "{\"model\":\"" + name + "\",\"prompt\":\"x\"}")
                  .statusCode())
          .isEqualTo(404);
    }
    for (String path :
        List.of("%2e%2e", "%2e%2e%2fadmin", "..%2f..%2fx", "a%00b", "x".repeat(8_000))) {
      assertThat(gateway.get("/v1/models/" + path).statusCode()).isIn(400, 401, 404);
    }
  }
}
