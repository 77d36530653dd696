package dev.flotilla.cluster;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.util.List;
import java.util.Optional;

/** Locks as applications have them: all but those by which the cluster itself takes turns. */
final class UserLocks implements Locks {

  private final Locks all;

  UserLocks(Locks all) {
    this.all = all;
  }

  private static void checkFree(String name) {
    if (name.startsWith(RESERVED)) {
      throw new FlotillaException(
          Code.INVALID,
          "a lock's name must not begin with " + RESERVED,
          "Such names are the cluster's own; choose another.");
    }
  }

  @Override
  public Optional<Grant> acquire(Request request) {
    checkFree(request.name());
    return all.acquire(request);
  }

  @Override
  public Optional<Grant> renew(Grant grant) {
    checkFree(grant.name());
    return all.renew(grant);
  }

  @Override
  public boolean release(Grant grant) {
    checkFree(grant.name());
    return all.release(grant);
  }

  @Override
  public View show(String name) {
    return all.show(name);
  }

  @Override
  public List<View> list() {
    return all.list();
  }
}
