/**
 * From text to token ids and back: tokenizers, BPE training, chat templates.
 *
 * <p>Knows nothing of weights, files of weights, HTTP or other machines.
 */
@NullMarked
package dev.flotilla.text;

import org.jspecify.annotations.NullMarked;
