/**
 * What a model is: its configuration, its one definition over {@link dev.flotilla.tensor.Ops}, its
 * files (GGUF, safetensors, Hugging Face folders), a slice of its layers, and the KV cache of that
 * slice.
 *
 * <p>Knows nothing of other machines, requests, sampling or HTTP.
 */
@NullMarked
package dev.flotilla.model;

import org.jspecify.annotations.NullMarked;
