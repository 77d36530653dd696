package dev.flotilla.data.grid;

import javax.cache.configuration.Factory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import org.apache.ignite.ssl.SSLContextWrapper;

/** The cluster's TLS for the grid's sockets, which ask for no client certificate of themselves. */
final class MutualTls implements Factory<SSLContext> {

  private static final long serialVersionUID = 1L;

  private final transient SSLContext context;

  MutualTls(SSLContext cluster) {
    SSLParameters parameters = cluster.getDefaultSSLParameters();
    parameters.setProtocols(new String[] {"TLSv1.3"});
    parameters.setNeedClientAuth(true);
    this.context = new SSLContextWrapper(cluster, parameters);
  }

  @Override
  public SSLContext create() {
    return context;
  }
}
