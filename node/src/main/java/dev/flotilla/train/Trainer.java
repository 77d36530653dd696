package dev.flotilla.train;

import dev.flotilla.model.ModelConfig;
import java.util.List;
import java.util.function.Consumer;
import java.util.function.LongSupplier;
import java.util.stream.IntStream;
import org.bytedeco.javacpp.PointerScope;
import org.bytedeco.pytorch.Scalar;
import org.bytedeco.pytorch.Tensor;

/**
 * Data-parallel training of one model. Every worker holds all weights and takes its share of each
 * batch; the gradients, the loss and the number of targets are summed over the workers and only
 * then divided, so the result is that of one worker with the whole batch, whatever the shares.
 */
final class Trainer implements AutoCloseable {

  private static final float ROPE_THETA = 10_000;
  private static final float RMS_EPSILON = 1e-5f;

  private final TrainingConfig config;
  private final TrainingData data;
  private final int rank;
  private final int worldSize;
  private final GradientExchange exchange;
  private final LongSupplier nanoTime;
  private final TrainingModel model;
  private final AdamW optimizer;
  private final Schedule schedule;

  Trainer(
      TrainingConfig config,
      TrainingData data,
      int rank,
      int worldSize,
      GradientExchange exchange,
      LongSupplier nanoTime) {
    this.config = config;
    this.data = data;
    this.rank = rank;
    this.worldSize = worldSize;
    this.exchange = exchange;
    this.nanoTime = nanoTime;
    model = new TrainingModel(shape(config, data.tokenizer().vocabularySize()), config.seed());
    optimizer = new AdamW(model.parameters().count(), config.weightDecay(), config.gradientClip());
    schedule = new Schedule(config.learningRate(), config.warmupSteps(), config.steps());
  }

  /** The shape of the model that a configuration asks for. */
  static ModelConfig shape(TrainingConfig config, int vocabularySize) {
    return new ModelConfig(
        vocabularySize,
        config.width(),
        config.layers(),
        config.heads(),
        config.kvHeads(),
        config.width() / config.heads(),
        config.feedForward(),
        config.contextLength(),
        ROPE_THETA,
        RMS_EPSILON,
        true);
  }

  TrainingModel model() {
    return model;
  }

  /**
   * Takes all steps.
   *
   * @param report receives a point of the curve after every {@code reportEverySteps} steps: the
   *     mean loss since the last one, and the validation loss where there is one
   */
  void run(int reportEverySteps, Consumer<WorkerEvent.Progress> report) {
    double lossSum = 0;
    double targets = 0;
    long since = nanoTime.getAsLong();
    for (int step = 0; step < config.steps(); step++) {
      model.gradients(share(step));
      exchange.sum(model.parameters().gradients());
      TrainingModel.Loss loss = optimise(step);
      lossSum += loss.sum();
      targets += loss.targets();
      if ((step + 1) % reportEverySteps == 0 || step + 1 == config.steps()) {
        double seconds = (nanoTime.getAsLong() - since) / 1e9;
        int steps = (step % reportEverySteps) + 1;
        double tokens = (double) steps * config.batch() * config.contextLength();
        double validation = rank == 0 ? validationLoss() : Double.NaN;
        report.accept(
            new WorkerEvent.Progress(step + 1, lossSum / targets, validation, tokens / seconds));
        lossSum = 0;
        targets = 0;
        since = nanoTime.getAsLong();
      }
    }
  }

  /** This worker's sequences of a step; the shares differ by one at most. */
  private List<Sequence> share(int step) {
    int from = config.batch() * rank / worldSize;
    int to = config.batch() * (rank + 1) / worldSize;
    return IntStream.range(from, to)
        .mapToObj(i -> data.sequence((long) step * config.batch() + i))
        .toList();
  }

  /** Divides the summed gradients by the number of targets, and steps. */
  private TrainingModel.Loss optimise(int step) {
    Parameters parameters = model.parameters();
    try (var scope = new PointerScope()) {
      float[] sums = Parameters.floats(parameters.gradients().narrow(0, parameters.count(), 2));
      Tensor gradient = parameters.gradients().narrow(0, 0, parameters.count());
      gradient.mul_(new Scalar(1 / Math.max(1.0, sums[1])));
      optimizer.step(parameters.values(), gradient, parameters.matrixElements(), schedule.at(step));
      return new TrainingModel.Loss(sums[0], Math.round(sums[1]));
    }
  }

  private double validationLoss() {
    double sum = 0;
    int targets = 0;
    List<Sequence> validation = data.validation();
    for (int from = 0; from < validation.size(); from += config.batch()) {
      TrainingModel.Loss loss =
          model.evaluate(
              validation.subList(from, Math.min(validation.size(), from + config.batch())));
      sum += loss.sum();
      targets += loss.targets();
    }
    return targets == 0 ? Double.NaN : sum / targets;
  }

  @Override
  public void close() {
    model.close();
    optimizer.close();
  }
}
