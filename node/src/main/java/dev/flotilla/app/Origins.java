package dev.flotilla.app;

import dev.flotilla.FlotillaException;
import dev.flotilla.FlotillaException.Code;
import java.net.Inet6Address;
import java.net.InetAddress;
import java.net.URI;
import java.net.UnknownHostException;
import java.util.Locale;
import java.util.Optional;

/**
 * Which addresses a node fetches from when somebody with a key asks it to: none of its own network,
 * which that somebody may not reach (server-side request forgery, OWASP A10:2021).
 *
 * <p>A host's addresses are looked up and checked just before each request; the JVM keeps them for
 * some seconds, so the request goes to what was checked.
 *
 * @param privateToo also loopback, link-local and private addresses
 * @param trusted an address whose host the operator has named, and that is asked wherever it is
 */
record Origins(boolean privateToo, Optional<URI> trusted) {

  /**
   * Returns if the address may be asked.
   *
   * @throws FlotillaException {@code INVALID} if not, {@code UNAVAILABLE} if its host is not known
   */
  void check(URI address) {
    if (address.getHost() == null
        || address.getUserInfo() != null
        || !(isSecure(address) || "http".equals(scheme(address)))) {
      throw new FlotillaException(
          Code.INVALID,
          address + " is no address to fetch from",
          "It looks like https://HOST/PATH, without a user.");
    }
    if (privateToo || trusted.filter(t -> same(t, address)).isPresent()) {
      return;
    }
    for (InetAddress each : addresses(address.getHost())) {
      if (isPrivate(each)) {
        throw new FlotillaException(
            Code.INVALID,
            address.getHost() + " is " + each.getHostAddress() + ", in a private network",
            "To fetch from there all the same, start the node with --allow-private-sources.");
      }
    }
  }

  static boolean isSecure(URI address) {
    return "https".equals(scheme(address));
  }

  /** Whether both are of the same scheme, host and port. */
  static boolean same(URI one, URI other) {
    return scheme(one).equals(scheme(other))
        && one.getHost() != null
        && one.getHost().equalsIgnoreCase(other.getHost())
        && port(one) == port(other);
  }

  private static String scheme(URI address) {
    return String.valueOf(address.getScheme()).toLowerCase(Locale.ROOT);
  }

  private static int port(URI address) {
    return address.getPort() >= 0 ? address.getPort() : isSecure(address) ? 443 : 80;
  }

  private static InetAddress[] addresses(String host) {
    try {
      return InetAddress.getAllByName(host);
    } catch (UnknownHostException e) {
      throw new FlotillaException(
          Code.UNAVAILABLE, "there is no host " + host, "Check the address and the network.", e);
    }
  }

  /** Of RFC 6890 what leads to this machine or its surroundings. */
  static boolean isPrivate(InetAddress address) {
    byte[] bytes = address.getAddress();
    int first = bytes[0] & 0xff;
    int second = bytes[1] & 0xff;
    boolean uniqueLocal = address instanceof Inet6Address && (first & 0xfe) == 0xfc;
    boolean embedsIpv4 =
        address instanceof Inet6Address
            && first == 0
            && second == 0x64
            && (bytes[2] & 0xff) == 0xff;
    boolean shared = !(address instanceof Inet6Address) && first == 100 && (second & 0xc0) == 64;
    boolean thisNetwork = !(address instanceof Inet6Address) && first == 0;
    return address.isLoopbackAddress()
        || address.isAnyLocalAddress()
        || address.isLinkLocalAddress()
        || address.isSiteLocalAddress()
        || address.isMulticastAddress()
        || uniqueLocal
        || embedsIpv4
        || shared
        || thisNetwork;
  }
}
