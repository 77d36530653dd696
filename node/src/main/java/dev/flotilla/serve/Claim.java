package dev.flotilla.serve;

/**
 * In whose name a request comes, and how urgent it is. Machines are shared evenly between tenants,
 * and between priorities by their weights.
 *
 * @param tenant who pays; any text
 */
public record Claim(String tenant, Priority priority) {

  /** Of work that nobody asked for by name. */
  public static final Claim NOBODY = new Claim("", Priority.NORMAL);
}
