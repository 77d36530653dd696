package dev.flotilla.data.grid;

import static org.assertj.core.api.Assertions.assertThat;

import dev.flotilla.data.grid.Rejoining.Action;
import dev.flotilla.data.grid.Rejoining.Own;
import dev.flotilla.data.grid.Rejoining.Peer;
import java.util.List;
import org.junit.jupiter.api.Test;

class RejoiningTest {

  private static Own running(boolean majority, int rank) {
    return new Own("m", true, majority, rank, true);
  }

  private static Own stopped(int rank) {
    return new Own("m", false, false, rank, true);
  }

  private static Peer leading(String id) {
    return new Peer(id, true, true, true, false, true, 2);
  }

  private static Peer lone(String id, int rank) {
    return new Peer(id, true, true, false, false, true, rank);
  }

  private static Peer down(String id, int rank) {
    return new Peer(id, false, false, false, false, false, rank);
  }

  private static Peer inactive(String id) {
    return new Peer(id, true, false, false, false, false, 2);
  }

  private static Action of3(Own own, Peer... answers) {
    return Rejoining.decide(own, List.of(answers), 3, true);
  }

  @Test
  void whoHasAMajorityStays() {
    assertThat(of3(running(true, 2), lone("a", 1), down("z", 2))).isEqualTo(Action.STAY);
  }

  @Test
  void whoIsAloneStaysWhileNobodyAnswers() {
    assertThat(of3(running(false, 0))).isEqualTo(Action.STAY);
  }

  @Test
  void whoIsAloneStopsForAMajorityThatGoesOnWithoutItAndComesBackEmpty() {
    assertThat(of3(running(false, 0), leading("z"))).isEqualTo(Action.STOP);
    assertThat(of3(stopped(0), leading("z"))).isEqualTo(Action.START_EMPTY);
  }

  @Test
  void whoIsSeenByThemIsOnItsWayAlready() {
    assertThat(of3(running(false, 2), new Peer("z", true, true, true, true, true, 2)))
        .isEqualTo(Action.STAY);
  }

  @Test
  void ofTwoEqualLoneHalvesTheOneWithTheLargerIdGivesUp() {
    assertThat(of3(running(false, 2), inactive("a"))).isEqualTo(Action.STOP);
    assertThat(of3(running(false, 2), inactive("z"))).isEqualTo(Action.STAY);
    assertThat(of3(running(false, 0), lone("a", 0))).isEqualTo(Action.STOP);
    assertThat(of3(running(false, 0), lone("z", 0))).isEqualTo(Action.STAY);
  }

  @Test
  void theOlderGivesWayToTheNewerEvenIfThatOneIsDown() {
    assertThat(of3(running(false, 0), down("z", 2))).isEqualTo(Action.STOP);
    assertThat(of3(running(false, 0), down("z", 1))).isEqualTo(Action.STOP);
    assertThat(of3(running(false, 1), down("a", 0))).isEqualTo(Action.STAY);
  }

  @Test
  void theNewestDoesNotStartIntoAnOlderOnesArms() {
    assertThat(of3(stopped(2), lone("a", 0))).isEqualTo(Action.STAY);
    assertThat(of3(stopped(2), down("a", 0))).isEqualTo(Action.START);
  }

  @Test
  void ofEqualsThatBeginTogetherTheOneWithTheSmallestIdGoesFirst() {
    assertThat(of3(stopped(2), down("a", 2))).isEqualTo(Action.STAY);
    assertThat(of3(stopped(2), down("a", 2), down("z", 2))).isEqualTo(Action.STAY);
    assertThat(of3(stopped(2), down("n", 2), down("z", 2))).isEqualTo(Action.START);
    assertThat(of3(stopped(2), inactive("a"), down("b", 2))).isEqualTo(Action.START);
    assertThat(of3(new Own("m", false, false, 2, false), down("a", 2))).isEqualTo(Action.START);
  }

  @Test
  void afterAFullStopTheyStartAsTheyAreOnceAMajorityAnswers() {
    assertThat(of3(stopped(2))).isEqualTo(Action.STAY);
    assertThat(of3(stopped(2), down("z", 2))).isEqualTo(Action.START);
    assertThat(of3(stopped(2), inactive("a"))).isEqualTo(Action.START);
  }

  @Test
  void whenAllWereAloneAtOnceNobodyDeletesAnything() {
    assertThat(of3(stopped(0), down("y", 0), down("z", 0))).isEqualTo(Action.START);
    assertThat(of3(stopped(0), down("z", 0))).isEqualTo(Action.START);
  }

  @Test
  void theOlderWaitsUntilANewerOneRuns() {
    assertThat(of3(stopped(0), down("a", 2))).isEqualTo(Action.STAY);
    assertThat(of3(stopped(0), inactive("a"))).isEqualTo(Action.START_EMPTY);
    assertThat(of3(stopped(0), inactive("a"), down("z", 2))).isEqualTo(Action.STAY);
  }

  @Test
  void inALargerGridTheOlderKeepsItsDataIfTheOthersCannotGoOnWithoutIt() {
    assertThat(
            Rejoining.decide(
                stopped(0), List.of(inactive("a"), inactive("b"), down("c", 0)), 5, true))
        .isEqualTo(Action.START);
    assertThat(
            Rejoining.decide(
                stopped(0), List.of(leading("a"), leading("b"), leading("c")), 5, true))
        .isEqualTo(Action.START_EMPTY);
  }

  @Test
  void aNewNodeNeverMakesAGridOfItsOwn() {
    assertThat(Rejoining.decide(stopped(2), List.of(), 3, false)).isEqualTo(Action.STAY);
    assertThat(Rejoining.decide(stopped(2), List.of(inactive("a")), 3, false))
        .isEqualTo(Action.STAY);
    assertThat(Rejoining.decide(stopped(2), List.of(leading("a")), 1, false))
        .isEqualTo(Action.START);
  }

  @Test
  void aGridOfOneStartsAlone() {
    assertThat(Rejoining.decide(stopped(2), List.of(), 1, true)).isEqualTo(Action.START);
    assertThat(Rejoining.decide(stopped(1), List.of(), 1, true)).isEqualTo(Action.START);
  }

  @Test
  void whenAllWereAloneTheFirstOnesDataCountsAndTheThirdKeepsItsOwnUntilTwoAreAMajority() {
    assertThat(of3(stopped(Rejoining.ALONE), down("z", Rejoining.ALONE))).isEqualTo(Action.START);
    assertThat(of3(stopped(Rejoining.ALONE), lone("a", Rejoining.ALONE)))
        .isEqualTo(Action.START_EMPTY);
    assertThat(
            of3(stopped(Rejoining.ALONE), lone("a", Rejoining.ALONE), lone("b", Rejoining.FILLING)))
        .isEqualTo(Action.STAY);
    assertThat(of3(stopped(Rejoining.ALONE), leading("a"), lone("b", Rejoining.FILLING)))
        .isEqualTo(Action.START_EMPTY);
    assertThat(
            Rejoining.decide(
                stopped(Rejoining.ALONE),
                List.of(lone("a", Rejoining.ALONE), down("z", Rejoining.ALONE)),
                5,
                true))
        .isEqualTo(Action.START);
  }

  @Test
  void whoIsBeingFilledIsNoSourceForWhoWasAlone() {
    assertThat(of3(stopped(Rejoining.ALONE), lone("a", Rejoining.FILLING))).isEqualTo(Action.STAY);
    assertThat(of3(running(false, Rejoining.FILLING), down("z", Rejoining.ALONE)))
        .isEqualTo(Action.STOP);
    assertThat(of3(stopped(Rejoining.FILLING), down("a", Rejoining.ALONE))).isEqualTo(Action.STAY);
  }

  @Test
  void theRankFollowsTheViewFirst() {
    assertThat(Rejoining.rank(false, Rejoining.Doubt.NONE)).isEqualTo(Rejoining.OUTSIDE);
    assertThat(Rejoining.rank(true, Rejoining.Doubt.NONE)).isEqualTo(Rejoining.CLEAN);
    assertThat(Rejoining.rank(true, Rejoining.Doubt.ALONE)).isEqualTo(Rejoining.ALONE);
    assertThat(Rejoining.rank(true, Rejoining.Doubt.FILLING)).isEqualTo(Rejoining.FILLING);
  }
}
