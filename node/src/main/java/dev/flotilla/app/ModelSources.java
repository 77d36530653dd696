package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.net.URI;
import java.util.Map;
import java.util.Optional;

/**
 * From where a node fetches models.
 *
 * @param privateToo also from addresses of private networks
 * @param endpoint of the hub where it is not the public one
 * @param token for the hub
 */
record ModelSources(boolean privateToo, Optional<URI> endpoint, Optional<String> token) {

  /** As the hub's own tools have it: {@code HF_ENDPOINT} and {@code HF_TOKEN}. */
  static ModelSources of(Map<String, String> environment, boolean privateToo) {
    return new ModelSources(
        privateToo,
        set(environment, "HF_ENDPOINT").map(ModelSources::address),
        set(environment, "HF_TOKEN"));
  }

  private static Optional<String> set(Map<String, String> environment, String name) {
    return Optional.ofNullable(environment.get(name)).filter(value -> !value.isBlank());
  }

  private static URI address(String value) {
    try {
      URI address = URI.create(value);
      if (address.getHost() != null) {
        return address;
      }
    } catch (IllegalArgumentException e) {
      // Said below.
    }
    throw new FlotillaException(
        Code.INVALID,
        "HF_ENDPOINT is \"" + value + "\"",
        "It looks like https://HOST; unset it for the public hub.");
  }

  URI hub() {
    return endpoint.orElse(HuggingFaceHub.ENDPOINT);
  }

  Origins origins() {
    return new Origins(privateToo, endpoint);
  }
}
