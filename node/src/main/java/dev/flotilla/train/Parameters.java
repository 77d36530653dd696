package dev.flotilla.train;

import dev.flotilla.model.ModelConfig;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.random.RandomGenerator;
import org.bytedeco.javacpp.FloatPointer;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Tensor;
import org.bytedeco.pytorch.global.torch;

/**
 * The weights of a model in training. All of them are views of one flat vector, and their gradients
 * of another, so that the optimiser, the clipping and the exchange between workers each handle a
 * single tensor. Matrices come first: weight decay applies to that prefix only.
 *
 * <p>The gradient vector has two more elements at its end, which travel with the gradients: the sum
 * of the loss, and the number of target tokens.
 */
final class Parameters implements AutoCloseable {

  private static final double EMBEDDING_DEVIATION = 0.3;

  private final ModelConfig config;
  private final Map<String, Tensor> byName = new LinkedHashMap<>();
  private final Tensor values;
  private final Tensor gradients;
  private final long count;
  private final long matrixElements;

  /**
   * Fresh weights: matrices normal with deviation 1/√(inputs), so that small models attend from the
   * start (0.02, as for large ones, took four times the steps); those that end a residual branch
   * divided by √(2·layers) as in GPT-2; the embedding large enough that deep layers still see it;
   * gains are 1. They depend on the seed alone.
   */
  Parameters(ModelConfig config, long seed) {
    this.config = config;
    Map<String, long[]> shapes = shapes(config);
    long matrices = 0;
    long all = 0;
    for (long[] shape : shapes.values()) {
      long elements = shape[0] * (shape.length == 2 ? shape[1] : 1);
      all += elements;
      matrices += shape.length == 2 ? elements : 0;
    }
    count = all;
    matrixElements = matrices;
    float[] initial = new float[Math.toIntExact(count)];
    int at = 0;
    RandomGenerator random = new SplittableRandom(seed);
    for (var entry : shapes.entrySet()) {
      long[] shape = entry.getValue();
      double deviation = deviation(entry.getKey(), shape);
      long elements = shape[0] * (shape.length == 2 ? shape[1] : 1);
      for (long i = 0; i < elements; i++) {
        initial[at++] = shape.length == 2 ? (float) (random.nextGaussian() * deviation) : 1;
      }
    }
    try (var _ = new PointerScope()) {
      values = kept(torch.tensor(initial));
      gradients = kept(torch.zeros(count + 2));
      long from = 0;
      for (var entry : shapes.entrySet()) {
        long[] shape = entry.getValue();
        long elements = shape[0] * (shape.length == 2 ? shape[1] : 1);
        Tensor view = kept(values.narrow(0, from, elements).view(shape).detach());
        view.requires_grad_(true);
        view.mutable_grad().put(gradients.narrow(0, from, elements).view(shape));
        byName.put(entry.getKey(), view);
        from += elements;
      }
    }
  }

  private double deviation(String name, long[] shape) {
    if (name.contains("embed_tokens")) {
      return EMBEDDING_DEVIATION;
    }
    boolean endsBranch = name.contains("o_proj") || name.contains("down_proj");
    return 1 / Math.sqrt(shape[shape.length - 1] * (endsBranch ? 2.0 * config.layers() : 1));
  }

  /** The names and shapes that Hugging Face gives the weights, matrices first. */
  private static Map<String, long[]> shapes(ModelConfig c) {
    Map<String, long[]> shapes = new LinkedHashMap<>();
    long query = (long) c.heads() * c.headWidth();
    long keyValue = (long) c.kvHeads() * c.headWidth();
    shapes.put("model.embed_tokens.weight", new long[] {c.vocabularySize(), c.width()});
    for (int layer = 0; layer < c.layers(); layer++) {
      String prefix = "model.layers." + layer + ".";
      shapes.put(prefix + "self_attn.q_proj.weight", new long[] {query, c.width()});
      shapes.put(prefix + "self_attn.k_proj.weight", new long[] {keyValue, c.width()});
      shapes.put(prefix + "self_attn.v_proj.weight", new long[] {keyValue, c.width()});
      shapes.put(prefix + "self_attn.o_proj.weight", new long[] {c.width(), query});
      shapes.put(prefix + "mlp.gate_proj.weight", new long[] {c.feedForward(), c.width()});
      shapes.put(prefix + "mlp.up_proj.weight", new long[] {c.feedForward(), c.width()});
      shapes.put(prefix + "mlp.down_proj.weight", new long[] {c.width(), c.feedForward()});
    }
    for (int layer = 0; layer < c.layers(); layer++) {
      String prefix = "model.layers." + layer + ".";
      shapes.put(prefix + "input_layernorm.weight", new long[] {c.width()});
      shapes.put(prefix + "post_attention_layernorm.weight", new long[] {c.width()});
    }
    shapes.put("model.norm.weight", new long[] {c.width()});
    return shapes;
  }

  /** The blocks as the model's definition wants them: weights by their names in GGUF. */
  List<Map<String, Tensor>> blocks() {
    List<Map<String, Tensor>> blocks = new ArrayList<>();
    for (int layer = 0; layer < config.layers(); layer++) {
      String prefix = "model.layers." + layer + ".";
      blocks.add(
          Map.of(
              "attn_norm.weight", named(prefix + "input_layernorm.weight"),
              "attn_q.weight", named(prefix + "self_attn.q_proj.weight"),
              "attn_k.weight", named(prefix + "self_attn.k_proj.weight"),
              "attn_v.weight", named(prefix + "self_attn.v_proj.weight"),
              "attn_output.weight", named(prefix + "self_attn.o_proj.weight"),
              "ffn_norm.weight", named(prefix + "post_attention_layernorm.weight"),
              "ffn_gate.weight", named(prefix + "mlp.gate_proj.weight"),
              "ffn_up.weight", named(prefix + "mlp.up_proj.weight"),
              "ffn_down.weight", named(prefix + "mlp.down_proj.weight")));
    }
    return blocks;
  }

  Tensor embedding() {
    return named("model.embed_tokens.weight");
  }

  Tensor finalNorm() {
    return named("model.norm.weight");
  }

  private Tensor named(String name) {
    Tensor tensor = byName.get(name);
    if (tensor == null) {
      throw new IllegalStateException("no weight " + name);
    }
    return tensor;
  }

  /** All weights as one vector {@code [count]}. */
  Tensor values() {
    return values;
  }

  /** All gradients, then the sum of the loss, then the number of targets: {@code [count + 2]}. */
  Tensor gradients() {
    return gradients;
  }

  /** How many weights there are. */
  long count() {
    return count;
  }

  /** How many of them, from the start, are in matrices. */
  long matrixElements() {
    return matrixElements;
  }

  /** A copy of every weight, by its Hugging Face name, row after row. */
  Map<String, float[]> copy() {
    Map<String, float[]> copies = new LinkedHashMap<>();
    byName.forEach((name, tensor) -> copies.put(name, floats(tensor)));
    return copies;
  }

  /** The shape of every weight, by its Hugging Face name. */
  Map<String, List<Integer>> shapesByName() {
    Map<String, List<Integer>> result = new LinkedHashMap<>();
    shapes(config)
        .forEach(
            (name, shape) ->
                result.put(name, Arrays.stream(shape).mapToObj(Math::toIntExact).toList()));
    return result;
  }

  /** The elements of a contiguous f32 tensor. */
  static float[] floats(Tensor tensor) {
    float[] elements = new float[Math.toIntExact(tensor.numel())];
    try (FloatPointer data = tensor.data_ptr_float()) {
      data.get(elements);
    }
    return elements;
  }

  private static Tensor kept(Tensor tensor) {
    return tensor.retainReference();
  }

  @Override
  public void close() {
    byName.values().forEach(Tensor::close);
    values.close();
    gradients.close();
  }
}
