package dev.flotilla.bench;

import java.util.List;
import java.util.Random;

/** What clients do while nodes fail, and how to judge what they were told. */
interface Workload {

  /** What the report calls it. */
  String name();

  /** Makes what it needs, on a healthy cluster. */
  void prepare(Api api) throws InterruptedException;

  /** One operation of one client, through some node. */
  void step(int client, Api api, Random random) throws InterruptedException;

  /** Judges, on a healed cluster; each anomaly in words. */
  List<String> check(Api api) throws InterruptedException;

  /** Operations so far. */
  int operations();

  /** What was asked and answered, one line each, for whoever looks for an anomaly's cause. */
  List<String> history();
}
