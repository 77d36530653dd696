package dev.flotilla.data.log;

import java.util.List;
import java.util.Optional;
import java.util.function.Predicate;

/** The log of nodes and the streams of applications, as one. */
public final class GridLog implements Log {

  private final NodeLog nodes;
  private final LogStreams streams;

  public GridLog(NodeLog nodes, LogStreams streams) {
    this.nodes = nodes;
    this.streams = streams;
  }

  @Override
  public Page search(Query query) {
    return nodes.search(query);
  }

  @Override
  public void follow(Query query, Predicate<Optional<Entry>> onEntry) {
    nodes.follow(query, onEntry);
  }

  @Override
  public long append(String stream, List<byte[]> records) {
    return streams.append(stream, records);
  }

  @Override
  public List<StreamRecord> read(String stream, long from, int max, long waitMs) {
    return streams.read(stream, from, max, waitMs);
  }

  @Override
  public StreamInfo stream(String name) {
    return streams.stream(name);
  }

  @Override
  public List<StreamInfo> streams() {
    return streams.streams();
  }

  @Override
  public void trim(String stream, long before) {
    streams.trim(stream, before);
  }
}
