package dev.flotilla.train;

/**
 * The learning rate over the steps: a linear warm-up, then half a cosine down to a tenth of the
 * peak.
 */
record Schedule(double peak, int warmupSteps, int steps) {

  private static final double FLOOR = 0.1;

  /** The rate of a step, counted from 0. */
  double at(int step) {
    if (step < warmupSteps) {
      return peak * (step + 1) / warmupSteps;
    }
    double progress = (step - warmupSteps) / (double) Math.max(1, steps - warmupSteps);
    return peak * (FLOOR + (1 - FLOOR) * 0.5 * (1 + Math.cos(Math.PI * Math.min(1, progress))));
  }
}
