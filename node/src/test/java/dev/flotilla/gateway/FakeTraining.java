package dev.flotilla.gateway;

import dev.flotilla.FlotillaException;
import dev.flotilla.train.TrainingConfig;
import dev.flotilla.train.TrainingJobs;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

/** Jobs that a test sets. */
final class FakeTraining implements TrainingJobs {

  final List<JobView> jobs = new CopyOnWriteArrayList<>();
  final List<TrainingConfig> submitted = new CopyOnWriteArrayList<>();

  @Override
  public String submit(TrainingConfig config) {
    submitted.add(config);
    return "job-" + submitted.size();
  }

  @Override
  public JobView get(String id) {
    return jobs.stream()
        .filter(j -> j.id().equals(id))
        .findFirst()
        .orElseThrow(
            () ->
                new FlotillaException(
                    FlotillaException.Code.NOT_FOUND, "no training job " + id, ""));
  }

  @Override
  public List<JobView> list() {
    return jobs;
  }

  @Override
  public void cancel(String id) {
    get(id);
    jobs.removeIf(j -> j.id().equals(id));
  }
}
