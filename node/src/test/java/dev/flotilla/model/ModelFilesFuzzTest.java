package dev.flotilla.model;

import static org.assertj.core.api.Assertions.assertThat;

import com.code_intelligence.jazzer.junit.FuzzTest;
import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import java.io.IOException;
import java.lang.foreign.MemorySegment;

/**
 * Whatever bytes a model's files have, they are read or refused with a typed error. As part of the
 * tests, the inputs kept beside this class are run; with the environment variable {@code
 * JAZZER_FUZZ=1}, Maven's {@code -Djazzer.hooks=true} and one of the methods chosen, new ones are
 * searched for.
 */
class ModelFilesFuzzTest {

  private static void readOrRefused(Runnable reading) {
    try {
      reading.run();
    } catch (FlotillaException e) {
      assertThat(e.code()).isEqualTo(Code.BAD_FILE);
      assertThat(e.getMessage()).isNotBlank();
    }
  }

  @FuzzTest(maxDuration = "60s")
  void gguf(byte[] file) {
    readOrRefused(() -> GgufHeader.parse("fuzzed", file, file.length).modelConfig());
  }

  @FuzzTest(maxDuration = "60s")
  void safetensors(byte[] file) {
    readOrRefused(() -> Safetensors.parse("fuzzed", MemorySegment.ofArray(file)));
  }

  @FuzzTest(maxDuration = "60s")
  void configJson(byte[] file) {
    JsonNode json;
    try {
      json = Json.MAPPER.readTree(file);
    } catch (IOException e) {
      return; // said by JsonFiles
    }
    readOrRefused(() -> HuggingFaceConfig.parse(json, "fuzzed"));
  }
}
