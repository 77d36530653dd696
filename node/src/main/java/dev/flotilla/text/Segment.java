package dev.flotilla.text;

/**
 * A run of text with one provenance.
 *
 * @param text the characters
 * @param trusted whether special tokens spelled in it are special: true for what a model's own
 *     template wrote, false for what a user typed
 */
public record Segment(String text, boolean trusted) {}
