package dev.flotilla.client;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.flotilla.Json;
import dev.flotilla.data.sql.Migration;
import dev.flotilla.data.sql.Sql;
import dev.flotilla.data.sql.SqlResult;
import dev.flotilla.data.sql.SqlValues;
import java.util.ArrayList;
import java.util.List;

/** The database over HTTP. */
public final class HttpSql implements Sql {

  private final Client client;

  /** On the node that the client speaks to. */
  public HttpSql(Client client) {
    this.client = client;
  }

  /** {@inheritDoc} A statement is stopped when the connection ends; cancel does nothing here. */
  @Override
  public SqlResult execute(Request request, Cancel cancel) {
    return SqlValues.resultFromJson(client.post("/api/sql", body(request)));
  }

  static ObjectNode body(Request request) {
    ObjectNode body = Json.MAPPER.createObjectNode().put("statement", request.statement());
    ArrayNode arguments = body.putArray("arguments");
    request.arguments().forEach(each -> arguments.add(SqlValues.argumentToJson(each)));
    return body.put("rows_max", request.rowsMax()).put("timeout_ms", request.timeout().toMillis());
  }

  @Override
  public List<Table> tables() {
    List<Table> tables = new ArrayList<>();
    for (JsonNode table : client.get("/api/sql/tables").path("tables")) {
      List<TableColumn> columns = new ArrayList<>();
      for (JsonNode column : table.path("columns")) {
        columns.add(
            new TableColumn(
                column.path("name").asText(),
                column.path("type").asText(),
                column.path("nullable").asBoolean(),
                column.path("key").asInt()));
      }
      tables.add(new Table(table.path("name").asText(), columns));
    }
    return tables;
  }

  @Override
  public List<SqlResult.Column> describe(String statement) {
    List<SqlResult.Column> columns = new ArrayList<>();
    for (JsonNode column :
        client
            .post("/api/sql/describe", Json.MAPPER.createObjectNode().put("statement", statement))
            .path("columns")) {
      columns.add(new SqlResult.Column(column.path("name").asText(), column.path("type").asText()));
    }
    return columns;
  }

  @Override
  public List<Migration.Applied> migrate(List<Migration> migrations) {
    ObjectNode body = Json.MAPPER.createObjectNode();
    ArrayNode all = body.putArray("migrations");
    for (Migration migration : migrations) {
      all.addObject()
          .put("version", migration.version())
          .put("name", migration.name())
          .put("script", migration.script());
    }
    return applied(client.post("/api/sql/migrations", body));
  }

  @Override
  public List<Migration.Applied> migrations() {
    return applied(client.get("/api/sql/migrations"));
  }

  private static List<Migration.Applied> applied(JsonNode json) {
    List<Migration.Applied> applied = new ArrayList<>();
    for (JsonNode each : json.path("applied")) {
      applied.add(
          new Migration.Applied(
              each.path("version").asLong(),
              each.path("name").asText(),
              each.path("checksum").asText(),
              each.path("applied_at_ms").asLong()));
    }
    return applied;
  }
}
