package dev.flotilla.data.grid;

import static dev.flotilla.data.grid.Rejoining.ALONE;
import static dev.flotilla.data.grid.Rejoining.CLEAN;
import static dev.flotilla.data.grid.Rejoining.OUTSIDE;
import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.data.grid.Rejoining.Action;
import dev.flotilla.data.grid.Rejoining.Own;
import dev.flotilla.data.grid.Rejoining.Peer;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;

class RejoiningTest {

  private static Own running(boolean majority, int rank) {
    return new Own("m", true, majority, rank, true, true);
  }

  private static Own stopped(int rank) {
    return new Own("m", false, false, rank, true, true);
  }

  private static Peer leading(String id) {
    return new Peer(id, false, true, true, true, false, true, false, CLEAN);
  }

  private static Peer lone(String id, int rank) {
    return new Peer(id, false, true, true, false, false, true, false, rank);
  }

  private static Peer down(String id, int rank) {
    return new Peer(id, false, false, false, false, false, false, false, rank);
  }

  private static Peer changing(String id, int rank) {
    return new Peer(id, true, false, false, false, false, false, false, rank);
  }

  private static Peer inactive(String id) {
    return new Peer(id, false, true, false, false, false, false, false, CLEAN);
  }

  private static Action of3(Own own, Peer... answers) {
    return Rejoining.decide(own, List.of(answers), 3, true);
  }

  @Test
  void whoHasAMajorityStays() {
    assertThat(of3(running(true, CLEAN), lone("a", ALONE), down("z", CLEAN)))
        .isEqualTo(Action.STAY);
  }

  @Test
  void whoIsAloneStaysWhileNobodyAnswers() {
    assertThat(of3(running(false, OUTSIDE))).isEqualTo(Action.STAY);
  }

  @Test
  void whoIsAloneStopsForAMajorityThatGoesOnWithoutItAndComesBackEmpty() {
    assertThat(of3(running(false, OUTSIDE), leading("z"))).isEqualTo(Action.STOP);
    assertThat(of3(stopped(OUTSIDE), leading("z"))).isEqualTo(Action.START_EMPTY);
  }

  /** As when both emptied themselves for one that then stood still, and found each other. */
  @Test
  void whoStartedEmptyWithOthersOfTheKindStopsOnceOneThatHasEverythingAnswers() {
    Peer beside = new Peer("z", false, true, false, false, true, false, false, OUTSIDE);
    assertThat(of3(running(false, OUTSIDE), beside)).isEqualTo(Action.STAY);
    assertThat(of3(running(false, OUTSIDE), beside, lone("a", ALONE))).isEqualTo(Action.STOP);
    assertThat(of3(stopped(OUTSIDE), down("z", OUTSIDE), lone("a", ALONE)))
        .isEqualTo(Action.START_EMPTY);
  }

  @Test
  void aMajorityHasOneThatHasEverything() {
    var members =
        new GridMembers.Members(
            List.of("a", "m", "z"),
            List.of("a"),
            List.of("a", "m", "z"),
            "",
            List.of("a", "m", "z"));
    assertThat(members.isMajority(Set.of("m", "z"))).isFalse();
    assertThat(members.isMajority(Set.of("a"))).isFalse();
    assertThat(members.isMajority(Set.of("a", "z"))).isTrue();
  }

  @Test
  void whoIsSeenByThemIsOnItsWayAlready() {
    assertThat(
            of3(
                running(false, CLEAN),
                new Peer("z", false, true, true, true, true, true, false, CLEAN)))
        .isEqualTo(Action.STAY);
  }

  @Test
  void ofTwoEqualLoneHalvesTheOneWithTheLargerIdGivesUp() {
    assertThat(of3(running(false, CLEAN), inactive("a"))).isEqualTo(Action.STOP);
    assertThat(of3(running(false, CLEAN), inactive("z"))).isEqualTo(Action.STAY);
    assertThat(of3(running(false, OUTSIDE), lone("a", OUTSIDE))).isEqualTo(Action.STOP);
    assertThat(of3(running(false, OUTSIDE), lone("z", OUTSIDE))).isEqualTo(Action.STAY);
  }

  @Test
  void theOlderGivesWayToTheNewerEvenIfThatOneIsDown() {
    assertThat(of3(running(false, OUTSIDE), down("z", CLEAN))).isEqualTo(Action.STOP);
    assertThat(of3(running(false, OUTSIDE), down("z", ALONE))).isEqualTo(Action.STOP);
    assertThat(of3(running(false, ALONE), down("a", OUTSIDE))).isEqualTo(Action.STAY);
  }

  @Test
  void theNewestDoesNotStartIntoAnOlderOnesArms() {
    assertThat(of3(stopped(CLEAN), lone("a", OUTSIDE))).isEqualTo(Action.STAY);
    assertThat(of3(stopped(CLEAN), down("a", OUTSIDE))).isEqualTo(Action.START);
  }

  /** It may be in the topology that this node has just left, with a part of the data from then. */
  @Test
  void nobodyStartsAsItIsWhileALowerOneIsOnItsWayUpOrDown() {
    assertThat(of3(stopped(CLEAN), changing("a", OUTSIDE))).isEqualTo(Action.STAY);
    Own alone = new Own("m", false, false, ALONE, false, true);
    assertThat(of3(alone, changing("a", OUTSIDE), down("z", OUTSIDE))).isEqualTo(Action.STAY);
    assertThat(of3(alone, changing("a", ALONE), down("z", OUTSIDE))).isEqualTo(Action.STAY);
    assertThat(of3(alone, down("a", OUTSIDE), down("z", OUTSIDE))).isEqualTo(Action.CLAIM_VIEW);
    Own lone = new Own("m", true, false, ALONE, false, true);
    assertThat(of3(lone, changing("a", OUTSIDE), down("z", OUTSIDE))).isEqualTo(Action.STAY);
    assertThat(of3(lone, down("a", OUTSIDE), down("z", OUTSIDE))).isEqualTo(Action.CLAIM_VIEW);
  }

  @Test
  void whoStartsSeeksTheHighestThatRunAndNobodyLower() {
    assertThat(Rejoining.seeds(CLEAN, List.of(down("a", CLEAN), lone("z", OUTSIDE)))).isEmpty();
    assertThat(Rejoining.seeds(CLEAN, List.of(inactive("a"), lone("z", OUTSIDE))))
        .containsExactly("a");
    assertThat(Rejoining.seeds(OUTSIDE, List.of(lone("a", ALONE), lone("z", OUTSIDE))))
        .containsExactly("a");
    assertThat(Rejoining.seeds(OUTSIDE, List.of(leading("a"), leading("z"))))
        .containsExactlyInAnyOrder("a", "z");
    assertThat(Rejoining.seeds(CLEAN, List.of(changing("a", CLEAN)))).isEmpty();
  }

  @Test
  void ofEqualsThatBeginTogetherTheOneWithTheSmallestIdGoesFirst() {
    assertThat(of3(stopped(CLEAN), down("a", CLEAN))).isEqualTo(Action.STAY);
    assertThat(of3(stopped(CLEAN), down("a", CLEAN), down("z", CLEAN))).isEqualTo(Action.STAY);
    assertThat(of3(stopped(CLEAN), down("n", CLEAN), down("z", CLEAN))).isEqualTo(Action.START);
    assertThat(of3(stopped(CLEAN), inactive("a"), down("b", CLEAN))).isEqualTo(Action.START);
    assertThat(of3(new Own("m", false, false, CLEAN, false, true), down("a", CLEAN)))
        .isEqualTo(Action.START);
  }

  @Test
  void afterAFullStopTheyStartAsTheyAreOnceAMajorityAnswers() {
    assertThat(of3(stopped(CLEAN))).isEqualTo(Action.STAY);
    assertThat(of3(stopped(CLEAN), down("z", CLEAN))).isEqualTo(Action.START);
    assertThat(of3(stopped(CLEAN), inactive("a"))).isEqualTo(Action.START);
  }

  @Test
  void theOlderWaitsUntilANewerOneRuns() {
    assertThat(of3(stopped(OUTSIDE), down("a", CLEAN))).isEqualTo(Action.STAY);
    assertThat(of3(stopped(OUTSIDE), inactive("a"))).isEqualTo(Action.START_EMPTY);
    assertThat(of3(stopped(OUTSIDE), inactive("a"), down("z", CLEAN))).isEqualTo(Action.STAY);
  }

  private static Action of5(Own own, Peer... answers) {
    return Rejoining.decide(own, List.of(answers), 5, true);
  }

  private static Peer torn(String id) {
    return new Peer(id, false, true, true, true, false, false, true, CLEAN);
  }

  private static Peer unsettled(String id) {
    return new Peer(id, false, true, true, true, false, false, false, CLEAN);
  }

  @Test
  void inALargerGridAKeeperKeepsItsDataIfTheOthersCannotGoOnWithoutIt() {
    Own keeper = stopped(OUTSIDE);
    assertThat(of5(keeper, inactive("a"), inactive("b"), down("c", OUTSIDE)))
        .isEqualTo(Action.START);
    assertThat(of5(keeper, torn("a"), torn("b"), torn("c"))).isEqualTo(Action.START);
    assertThat(of5(keeper, unsettled("a"), unsettled("b"), unsettled("c"))).isEqualTo(Action.STAY);
    // They are whole, and the registry will soon say that it is no keeper.
    assertThat(of5(keeper, leading("a"), leading("b"), leading("c"))).isEqualTo(Action.STAY);
  }

  @Test
  void inALargerGridWhoIsNoKeeperStartsEmpty() {
    Own other = new Own("m", false, false, OUTSIDE, true, false);
    assertThat(of5(other, leading("a"), leading("b"), leading("c"))).isEqualTo(Action.START_EMPTY);
    assertThat(of5(other, inactive("a"), inactive("b"), down("c", OUTSIDE)))
        .isEqualTo(Action.START_EMPTY);
    assertThat(of5(other, torn("a"), torn("b"), torn("c"))).isEqualTo(Action.START_EMPTY);
    assertThat(of5(other, unsettled("a"), unsettled("b"), unsettled("c"))).isEqualTo(Action.STAY);
  }

  @Test
  void aNewNodeNeverMakesAGridOfItsOwn() {
    assertThat(Rejoining.decide(stopped(CLEAN), List.of(), 3, false)).isEqualTo(Action.STAY);
    assertThat(Rejoining.decide(stopped(CLEAN), List.of(inactive("a")), 3, false))
        .isEqualTo(Action.STAY);
    assertThat(Rejoining.decide(stopped(CLEAN), List.of(leading("a")), 1, false))
        .isEqualTo(Action.START_EMPTY);
  }

  @Test
  void aGridOfOneStartsAlone() {
    assertThat(Rejoining.decide(stopped(CLEAN), List.of(), 1, true)).isEqualTo(Action.START);
    assertThat(Rejoining.decide(stopped(ALONE), List.of(), 1, true)).isEqualTo(Action.START);
  }

  @Test
  void whenAllWereAloneOneTakesTheViewAndTheOthersStartEmptyBesideIt() {
    assertThat(of3(stopped(ALONE), down("z", ALONE))).isEqualTo(Action.STAY);
    assertThat(of3(new Own("m", false, false, ALONE, false, true), down("z", ALONE)))
        .isEqualTo(Action.CLAIM_VIEW);
    assertThat(of3(stopped(ALONE), down("y", ALONE), down("z", ALONE)))
        .isEqualTo(Action.CLAIM_VIEW);
    assertThat(of3(stopped(ALONE), lone("a", ALONE))).isEqualTo(Action.STAY);
    assertThat(of3(running(false, ALONE), down("y", ALONE), down("z", ALONE)))
        .isEqualTo(Action.CLAIM_VIEW);
    assertThat(of3(running(false, ALONE))).isEqualTo(Action.STAY);
    assertThat(of3(running(false, ALONE), lone("z", ALONE))).isEqualTo(Action.STAY);
    // Once the other has claimed it.
    assertThat(of3(stopped(OUTSIDE), lone("a", ALONE))).isEqualTo(Action.START_EMPTY);
    assertThat(
            Rejoining.decide(stopped(ALONE), List.of(lone("a", ALONE), down("z", ALONE)), 5, true))
        .isEqualTo(Action.START);
  }

  @Test
  void whoDoesNotHaveEverythingWaitsForOneWhoHas() {
    assertThat(of3(stopped(OUTSIDE), down("a", OUTSIDE), lone("b", OUTSIDE)))
        .isEqualTo(Action.STAY);
    assertThat(of3(running(false, OUTSIDE), down("z", ALONE))).isEqualTo(Action.STOP);
    Peer outside = new Peer("z", false, true, true, true, false, true, false, OUTSIDE);
    assertThat(of3(running(false, ALONE), outside, outside)).isEqualTo(Action.STAY);
    assertThat(of3(stopped(ALONE), lone("a", OUTSIDE))).isEqualTo(Action.STAY);
    assertThat(of3(stopped(OUTSIDE), down("a", ALONE))).isEqualTo(Action.STAY);
  }

  @Test
  void theRankFollowsTheViewFirst() {
    assertThat(Rejoining.rank(false, false)).isEqualTo(OUTSIDE);
    assertThat(Rejoining.rank(true, false)).isEqualTo(CLEAN);
    assertThat(Rejoining.rank(true, true)).isEqualTo(ALONE);
  }
}
