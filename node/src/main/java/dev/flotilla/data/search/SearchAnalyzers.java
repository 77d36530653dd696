package dev.flotilla.data.search;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.Supplier;
import org.apache.lucene.analysis.Analyzer;
import org.apache.lucene.analysis.cjk.CJKAnalyzer;
import org.apache.lucene.analysis.cn.smart.SmartChineseAnalyzer;
import org.apache.lucene.analysis.core.WhitespaceAnalyzer;
import org.apache.lucene.analysis.en.EnglishAnalyzer;
import org.apache.lucene.analysis.standard.StandardAnalyzer;

/** Analyzers by name, each made once, at its first use: some load dictionaries. */
final class SearchAnalyzers {

  private static final Map<String, Supplier<Analyzer>> MAKERS =
      new TreeMap<>(
          Map.of(
              "standard", StandardAnalyzer::new,
              "english", EnglishAnalyzer::new,
              "chinese", SmartChineseAnalyzer::new,
              "cjk", CJKAnalyzer::new,
              "whitespace", WhitespaceAnalyzer::new));

  private static final Map<String, Analyzer> MADE = new java.util.concurrent.ConcurrentHashMap<>();

  private SearchAnalyzers() {}

  /** Throws {@code INVALID}, naming what asked for it, if there is no such analyzer. */
  static void check(String name, String askedBy) {
    if (!MAKERS.containsKey(name)) {
      throw new FlotillaException(
          Code.INVALID,
          askedBy + ": there is no analyzer " + name,
          "There are " + String.join(", ", MAKERS.keySet()) + ".");
    }
  }

  static Analyzer of(String name) {
    check(name, "analyzer");
    return MADE.computeIfAbsent(
        name, any -> MAKERS.getOrDefault(name, StandardAnalyzer::new).get());
  }
}
