package dev.flotilla.app;

import com.fasterxml.jackson.databind.JsonNode;
import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import dev.flotilla.Json;
import dev.flotilla.client.Client;
import dev.flotilla.client.HttpJobs;
import dev.flotilla.data.jobs.Jobs;
import java.io.IOException;
import java.util.List;
import java.util.Map;
import picocli.CommandLine.Command;
import picocli.CommandLine.Option;
import picocli.CommandLine.Parameters;

/** Work over all nodes, from the shell. */
@Command(
    name = "jobs",
    description = "Run work over all nodes: count words, deduplicate, ask nodes.",
    subcommands = {
      JobsCommand.Run.class,
      JobsCommand.ListJobs.class,
      JobsCommand.Show.class,
      JobsCommand.Cancel.class
    },
    mixinStandardHelpOptions = true)
final class JobsCommand {

  private JobsCommand() {}

  private static List<String> row(Jobs.View job) {
    return List.of(
        job.id(),
        job.job(),
        job.state(),
        job.done() + "/" + job.tasks(),
        Integer.toString(job.attempts()),
        Long.toString(job.rows()),
        job.reason());
  }

  private static void print(List<Jobs.View> jobs) {
    ClientCommand.table(
        List.of("ID", "JOB", "STATE", "DONE", "ATTEMPTS", "ROWS", "REASON"),
        jobs.stream().map(JobsCommand::row).toList());
  }

  /** Starts one, and waits for it. */
  @Command(
      name = "run",
      description = "Run a job and wait for it: flotilla jobs run count_words '{\"cache\":\"c\"}'",
      mixinStandardHelpOptions = true)
  static final class Run extends ClientCommand {

    @Parameters(index = "0", paramLabel = "JOB", description = "Its name; see jobs list --kinds.")
    private String job = "";

    @Parameters(
        index = "1",
        arity = "0..1",
        paramLabel = "INPUT",
        defaultValue = "{}",
        description = "JSON, such as {\"blob\":\"sha256:…\"} or {\"cache\":\"name\"}.")
    private String input = "{}";

    @Option(names = "--detach", description = "Do not wait; print the id.")
    private boolean detach;

    @Override
    public Integer call() throws InterruptedException {
      Client client = client();
      HttpJobs jobs = new HttpJobs(client);
      String id = jobs.submit(job, parse());
      if (detach) {
        System.out.println(asJson ? json(Map.of("id", id)) : id);
        return 0;
      }
      Jobs.View view = jobs.show(id);
      int told = -1;
      while (view.state().equals("submitted") || view.state().equals("running")) {
        if (view.done() != told && !asJson) {
          told = view.done();
          System.err.println(id + ": " + told + " of " + view.tasks() + " tasks done");
        }
        Thread.sleep(200);
        view = jobs.show(id);
      }
      if (asJson) {
        print(client.get("/api/jobs/" + id));
      } else if (view.state().equals("done")) {
        for (Jobs.Row row : jobs.rows(id, "", 1000)) {
          System.out.println(row.key() + "\t" + row.value());
        }
      } else {
        System.err.println("flotilla: job " + id + " " + view.state() + " " + view.reason());
      }
      return view.state().equals("done") ? 0 : 1;
    }

    private JsonNode parse() {
      try {
        return Json.MAPPER.readTree(input);
      } catch (IOException e) {
        throw new FlotillaException(
            Code.INVALID, "the input is not JSON: " + input, "Quote it for the shell.", e);
      }
    }
  }

  /** All of them. */
  @Command(name = "list", description = "List jobs.", mixinStandardHelpOptions = true)
  static final class ListJobs extends ClientCommand {

    @Option(names = "--kinds", description = "List what can be run instead.")
    private boolean kinds;

    @Override
    public Integer call() {
      Client client = client();
      if (asJson) {
        return print(client.get(kinds ? "/api/job-definitions" : "/api/jobs"));
      }
      if (kinds) {
        new HttpJobs(client)
            .definitions()
            .forEach((name, text) -> System.out.println(name + "  " + text));
      } else {
        JobsCommand.print(new HttpJobs(client).list());
      }
      return 0;
    }
  }

  /** One. */
  @Command(name = "show", description = "Show a job.", mixinStandardHelpOptions = true)
  static final class Show extends ClientCommand {

    @Parameters(paramLabel = "ID")
    private String id = "";

    @Override
    public Integer call() {
      Client client = client();
      if (asJson) {
        return print(client.get("/api/jobs/" + Client.encode(id)));
      }
      JobsCommand.print(List.of(new HttpJobs(client).show(id)));
      return 0;
    }
  }

  /** Ends or deletes one. */
  @Command(
      name = "cancel",
      description = "End a job that runs; delete one that has ended.",
      mixinStandardHelpOptions = true)
  static final class Cancel extends ClientCommand {

    @Parameters(paramLabel = "ID")
    private String id = "";

    @Override
    public Integer call() {
      String state = new HttpJobs(client()).cancel(id);
      System.out.println(asJson ? json(Map.of(state, id)) : state + " " + id);
      return 0;
    }
  }
}
