package dev.flotilla.gateway;

import dev.flotilla.Json;
import java.nio.ByteBuffer;
import java.util.Locale;
import java.util.Optional;
import org.eclipse.jetty.http.HttpField;
import org.eclipse.jetty.http.HttpHeader;
import org.eclipse.jetty.http.HttpStatus;
import org.eclipse.jetty.server.Request;
import org.eclipse.jetty.server.Response;
import org.eclipse.jetty.server.handler.ErrorHandler;
import org.eclipse.jetty.util.Callback;

/** Errors that Jetty itself finds, such as a malformed header, in the form of all others. */
final class JsonErrors extends ErrorHandler {

  static byte[] body(int status, String message) {
    String code = HttpStatus.getMessage(status).toLowerCase(Locale.ROOT).replace(' ', '_');
    return Json.write(new ApiError(status, code, Optional.empty(), message).body());
  }

  @Override
  public boolean handle(Request request, Response response, Callback callback) {
    int status = response.getStatus() < 400 ? 500 : response.getStatus();
    Object message = request.getAttribute(ErrorHandler.ERROR_MESSAGE);
    byte[] body =
        body(status, message == null ? HttpStatus.getMessage(status) : message.toString());
    response.getHeaders().put(new HttpField(HttpHeader.CONTENT_TYPE, "application/json"));
    response.getHeaders().put(HttpHeader.CONTENT_LENGTH, body.length);
    response.write(true, ByteBuffer.wrap(body), callback);
    return true;
  }
}
