/**
 * Shapes, quantised blocks and the arithmetic of a decoder, once per backend: {@code simd} (our
 * Vector API kernels, for serving) and {@code torch} (libtorch with gradients, for training).
 *
 * <p>Knows nothing of layers, models, files, text or other machines.
 */
@NullMarked
package dev.flotilla.tensor;

import org.jspecify.annotations.NullMarked;
