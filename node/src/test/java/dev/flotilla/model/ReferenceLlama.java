package dev.flotilla.model;

import java.util.List;

/**
 * Llama in double precision, straight from a Hugging Face folder, in code that shares nothing with
 * the product's: what the product must agree with, up to rounding.
 */
final class ReferenceLlama {

  private final HuggingFaceFolder folder;
  private final ModelConfig c;

  ReferenceLlama(HuggingFaceFolder folder) {
    this.folder = folder;
    this.c = folder.config();
  }

  /** Logits of every position. */
  double[][] logits(int[] tokens) {
    double[][] output =
        c.tiedEmbeddings()
            ? matrix("model.embed_tokens", c.vocabularySize(), c.width())
            : matrix("lm_head", c.vocabularySize(), c.width());
    double[][] states = normalised(tokens);
    double[][] logits = new double[tokens.length][];
    for (int t = 0; t < tokens.length; t++) {
      logits[t] = times(output, states[t]);
    }
    return logits;
  }

  /** Hidden states of every position after the last norm. */
  double[][] normalised(int[] tokens) {
    double[][] table = matrix("model.embed_tokens", c.vocabularySize(), c.width());
    double[][] x = new double[tokens.length][];
    for (int t = 0; t < tokens.length; t++) {
      x[t] = table[tokens[t]].clone();
    }
    for (int layer = 0; layer < c.layers(); layer++) {
      String prefix = "model.layers." + layer + ".";
      addAttention(x, prefix);
      addFeedForward(x, prefix);
    }
    double[] norm = vector("model.norm", c.width());
    double[][] states = new double[tokens.length][];
    for (int t = 0; t < tokens.length; t++) {
      states[t] = normalised(x[t], norm);
    }
    return states;
  }

  private void addAttention(double[][] x, String prefix) {
    int width = c.headWidth();
    double[] norm = vector(prefix + "input_layernorm", c.width());
    double[][] q = matrix(prefix + "self_attn.q_proj", c.heads() * width, c.width());
    double[][] k = matrix(prefix + "self_attn.k_proj", c.kvHeads() * width, c.width());
    double[][] v = matrix(prefix + "self_attn.v_proj", c.kvHeads() * width, c.width());
    double[][] o = matrix(prefix + "self_attn.o_proj", c.width(), c.heads() * width);
    double[][] keys = new double[x.length][];
    double[][] values = new double[x.length][];
    for (int t = 0; t < x.length; t++) {
      double[] y = normalised(x[t], norm);
      keys[t] = rotated(times(k, y), t);
      values[t] = times(v, y);
      double[] query = rotated(times(q, y), t);
      double[] attended = new double[query.length];
      for (int head = 0; head < c.heads(); head++) {
        int first = head * width;
        int kvFirst = head / (c.heads() / c.kvHeads()) * width;
        double[] weights = new double[t + 1];
        double total = 0;
        for (int s = 0; s <= t; s++) {
          double score = 0;
          for (int i = 0; i < width; i++) {
            score += query[first + i] * keys[s][kvFirst + i];
          }
          weights[s] = Math.exp(score / Math.sqrt(width));
          total += weights[s];
        }
        for (int s = 0; s <= t; s++) {
          for (int i = 0; i < width; i++) {
            attended[first + i] += weights[s] / total * values[s][kvFirst + i];
          }
        }
      }
      add(x[t], times(o, attended));
    }
  }

  private void addFeedForward(double[][] x, String prefix) {
    double[] norm = vector(prefix + "post_attention_layernorm", c.width());
    double[][] gate = matrix(prefix + "mlp.gate_proj", c.feedForward(), c.width());
    double[][] up = matrix(prefix + "mlp.up_proj", c.feedForward(), c.width());
    double[][] down = matrix(prefix + "mlp.down_proj", c.width(), c.feedForward());
    for (double[] row : x) {
      double[] y = normalised(row, norm);
      double[] g = times(gate, y);
      double[] u = times(up, y);
      for (int i = 0; i < g.length; i++) {
        u[i] *= g[i] / (1 + Math.exp(-g[i]));
      }
      add(row, times(down, u));
    }
  }

  private double[] rotated(double[] x, int position) {
    int width = c.headWidth();
    double[] result = x.clone();
    for (int first = 0; first < x.length; first += width) {
      for (int i = 0; i < width / 2; i++) {
        double angle = position * Math.pow(c.ropeTheta(), -2.0 * i / width);
        double a = x[first + i];
        double b = x[first + i + width / 2];
        result[first + i] = a * Math.cos(angle) - b * Math.sin(angle);
        result[first + i + width / 2] = b * Math.cos(angle) + a * Math.sin(angle);
      }
    }
    return result;
  }

  private double[] normalised(double[] x, double[] gain) {
    double squares = 0;
    for (double value : x) {
      squares += value * value;
    }
    double[] result = new double[x.length];
    for (int i = 0; i < x.length; i++) {
      result[i] = x[i] / Math.sqrt(squares / x.length + c.rmsEpsilon()) * gain[i];
    }
    return result;
  }

  private static double[] times(double[][] matrix, double[] x) {
    double[] result = new double[matrix.length];
    for (int row = 0; row < matrix.length; row++) {
      for (int i = 0; i < x.length; i++) {
        result[row] += matrix[row][i] * x[i];
      }
    }
    return result;
  }

  private static void add(double[] x, double[] y) {
    for (int i = 0; i < x.length; i++) {
      x[i] += y[i];
    }
  }

  private double[] vector(String name, int size) {
    return row(folder.tensor(name + ".weight", List.of(size)), 0);
  }

  private double[][] matrix(String name, int rows, int columns) {
    Safetensors.Tensor tensor = folder.tensor(name + ".weight", List.of(rows, columns));
    double[][] result = new double[rows][];
    for (int row = 0; row < rows; row++) {
      result[row] = row(tensor, row);
    }
    return result;
  }

  private static double[] row(Safetensors.Tensor tensor, int row) {
    float[] values = new float[tensor.columns()];
    tensor.read(row, values);
    double[] result = new double[values.length];
    for (int i = 0; i < values.length; i++) {
      result[i] = values[i];
    }
    return result;
  }
}
