package dev.flotilla.data.usage;

/**
 * One completed request.
 *
 * @param requestId counted once, however often it is appended
 * @param timeMs when it was completed, since 1970
 * @param key the name of the API key that paid for it
 * @param cached whether the answer came from the response cache
 */
public record UsageEvent(
    String requestId,
    long timeMs,
    String key,
    String model,
    long promptTokens,
    long completionTokens,
    boolean cached) {}
