package dev.flotilla.gateway;

import org.eclipse.jetty.http.HttpFields;
import org.eclipse.jetty.http.MetaData;
import org.eclipse.jetty.http2.server.HTTP2CServerConnectionFactory;
import org.eclipse.jetty.io.Connection;
import org.eclipse.jetty.io.EndPoint;
import org.eclipse.jetty.server.Connector;
import org.eclipse.jetty.server.HttpConfiguration;
import org.jspecify.annotations.Nullable;

/**
 * HTTP/2 without TLS for clients that begin with it, but not for those that ask to upgrade.
 *
 * <p>The JDK's client asks with {@code Upgrade: h2c} on a request that already has a body. Jetty
 * would switch and lose a chunked body; a server may ignore the wish, and HTTP/1.1 goes on.
 */
final class UpgradeOnlyPriorKnowledge extends HTTP2CServerConnectionFactory {

  UpgradeOnlyPriorKnowledge(HttpConfiguration configuration) {
    super(configuration);
  }

  @Override
  public @Nullable Connection upgradeConnection(
      Connector connector,
      EndPoint endPoint,
      MetaData.Request request,
      HttpFields.Mutable response) {
    return request.getMethod().equals("PRI")
        ? super.upgradeConnection(connector, endPoint, request, response)
        : null;
  }
}
