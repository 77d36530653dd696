package dev.flotilla;

import static com.tngtech.archunit.base.DescribedPredicate.describe;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.classes;
import static com.tngtech.archunit.lang.syntax.ArchRuleDefinition.noClasses;
import static com.tngtech.archunit.library.dependencies.SlicesRuleDefinition.slices;
import static org.assertj.core.api.Assertions.assertThat;

import com.tngtech.archunit.core.domain.JavaClass;
import com.tngtech.archunit.core.domain.JavaClasses;
import com.tngtech.archunit.core.importer.ClassFileImporter;
import com.tngtech.archunit.core.importer.ImportOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletionStage;
import java.util.concurrent.Executor;
import org.junit.jupiter.api.Test;

/** Keeps the house in order: which package may use which, as docs/ARCHITECTURE.md draws it. */
class HouseTest {

  /** A package and what it may use; the root package, with errors and JSON, is open to all. */
  private static final Map<String, Set<String>> MAY_USE =
      Map.ofEntries(
          Map.entry("tensor", Set.of()),
          Map.entry("text", Set.of()),
          Map.entry("model", Set.of("tensor", "text")),
          Map.entry("cluster", Set.of()),
          Map.entry("data", Set.of("cluster")),
          Map.entry("plan", Set.of("model")),
          Map.entry("serve", Set.of("text", "model", "plan", "cluster")),
          Map.entry("train", Set.of("tensor", "text", "model", "plan", "cluster", "data")),
          Map.entry("gateway", Set.of("serve", "train", "data", "text", "model", "cluster")),
          Map.entry("client", Set.of("cluster", "data")),
          Map.entry("ops", Set.of("cluster", "data", "serve")),
          Map.entry("simulate", Set.of("tensor", "text", "model", "plan", "cluster", "serve")));

  /** The parts of the data plane, each a package under {@code data}. */
  private static final Set<String> PARTS =
      Set.of("grid", "cache", "queue", "log", "blobs", "search", "jobs", "usage", "sql");

  private static final JavaClasses PRODUCT =
      new ClassFileImporter()
          .withImportOption(ImportOption.Predefined.DO_NOT_INCLUDE_TESTS)
          .importPackages("dev.flotilla");

  @Test
  void dataFlowsOneWayThroughThePackages() {
    for (var rule : MAY_USE.entrySet()) {
      List<String> forbidden = new ArrayList<>();
      for (String other : MAY_USE.keySet()) {
        if (!other.equals(rule.getKey()) && !rule.getValue().contains(other)) {
          forbidden.add("dev.flotilla." + other + "..");
        }
      }
      forbidden.add("dev.flotilla.app..");
      noClasses()
          .that()
          .resideInAPackage("dev.flotilla." + rule.getKey() + "..")
          .should()
          .dependOnClassesThat()
          .resideInAnyPackage(forbidden.toArray(String[]::new))
          .allowEmptyShould(true)
          .check(PRODUCT);
    }
  }

  @Test
  void partsOfTheDataPlaneStandOnEachOtherInNoCircle() {
    slices().matching("dev.flotilla.data.(*)..").should().beFreeOfCycles().check(PRODUCT);
  }

  @Test
  void theGridKnowsNoPartThatStandsOnItAndNoPartKnowsTheDataPlane() {
    for (String part : PARTS) {
      if (!part.equals("grid")) {
        noClasses()
            .that()
            .resideInAPackage("dev.flotilla.data.grid")
            .should()
            .dependOnClassesThat()
            .resideInAPackage("dev.flotilla.data." + part + "..")
            .check(PRODUCT);
      }
      noClasses()
          .that()
          .resideInAPackage("dev.flotilla.data." + part)
          .should()
          .dependOnClassesThat()
          .resideInAPackage("dev.flotilla.data")
          .check(PRODUCT);
    }
  }

  @Test
  void everyClassOfTheDataPlaneIsInOneOfItsParts() {
    List<String> packages =
        new ArrayList<>(List.of("dev.flotilla.data", "dev.flotilla.data.proto"));
    PARTS.forEach(part -> packages.add("dev.flotilla.data." + part));
    classes()
        .that()
        .resideInAPackage("dev.flotilla.data..")
        .should()
        .resideInAnyPackage(packages.toArray(String[]::new))
        .check(PRODUCT);
  }

  @Test
  void everyClassLivesInAPackageOfTheDesign() {
    List<String> packages = new ArrayList<>(List.of("dev.flotilla", "dev.flotilla.app.."));
    MAY_USE.keySet().forEach(name -> packages.add("dev.flotilla." + name + ".."));
    classes().should().resideInAnyPackage(packages.toArray(String[]::new)).check(PRODUCT);
  }

  @Test
  void everyPackageSaysWhatItKnows() {
    Set<String> described = new java.util.HashSet<>();
    for (JavaClass each : PRODUCT) {
      if (each.getSimpleName().equals("package-info")) {
        described.add(each.getPackageName());
      }
    }
    Set<String> expected = new java.util.HashSet<>(Set.of("dev.flotilla", "dev.flotilla.app"));
    MAY_USE.keySet().forEach(name -> expected.add("dev.flotilla." + name));
    PARTS.forEach(part -> expected.add("dev.flotilla.data." + part));
    assertThat(described).containsAll(expected);
  }

  /** The registry's Raft finishes its work there, so that one blocked task stops every decision. */
  @Test
  void nothingRunsOnTheCommonPool() {
    noClasses()
        .should()
        .callMethodWhere(
            describe(
                "run something on the common pool",
                call -> {
                  String method = call.getTarget().getName();
                  boolean async =
                      call.getTargetOwner().isAssignableTo(CompletionStage.class)
                          && method.endsWith("Async")
                          && call.getTarget().getRawParameterTypes().stream()
                              .noneMatch(type -> type.isEquivalentTo(Executor.class));
                  return async || method.equals("parallelStream") || method.equals("commonPool");
                }))
        .check(PRODUCT);
  }

  @Test
  void nothingIsReadThroughJavaSerialization() {
    noClasses()
        .should()
        .dependOnClassesThat()
        .haveFullyQualifiedName("java.io.ObjectInputStream")
        .check(PRODUCT);
  }
}
