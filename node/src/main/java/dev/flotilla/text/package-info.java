/**
 * From text to token ids and back: tokenizers, BPE training, chat templates; and which tokens may
 * come next in a text that is held to a grammar or a JSON schema.
 *
 * <p>Knows nothing of weights, files of weights, HTTP or other machines.
 */
@NullMarked
package dev.flotilla.text;

import org.jspecify.annotations.NullMarked;
