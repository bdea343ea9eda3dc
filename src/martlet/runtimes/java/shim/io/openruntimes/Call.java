package io.openruntimes;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.BiConsumer;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import martlet.Json;
import martlet.Request;

/** A request as Open Runtimes describes it, in whatever language, and where its log goes. */
public final class Call {
    private final Request request;
    private final BiConsumer<String, String> log;

    /** A call; {@code log} takes a level and a text. */
    public Call(Request request, BiConsumer<String, String> log) {
        this.request = request;
        this.log = log;
    }

    /** The request itself. */
    public Request getRequest() {
        return request;
    }

    /** {@code http} or {@code https}. */
    public String getScheme() {
        return request.getHeaders().getOrDefault("x-forwarded-proto", "http");
    }

    /** The host without its port. */
    public String getHost() {
        return authority().replaceFirst(":\\d+$", "");
    }

    /** The port, the scheme's usual one where none was sent. */
    public int getPort() {
        String port = authority().substring(getHost().length());
        return port.isEmpty() ? usualPort() : Integer.parseInt(port.substring(1));
    }

    /** The whole address. */
    public String getUrl() {
        String port = getPort() == usualPort() ? "" : ":" + getPort();
        String query = request.getQueryString().isEmpty() ? "" : "?" + request.getQueryString();
        return getScheme() + "://" + getHost() + port + request.getPath() + query;
    }

    /** The last value of each name in the query, as it was sent: not decoded. */
    public Map<String, String> getQuery() {
        Map<String, String> query = new LinkedHashMap<>();
        for (String pair : request.getQueryString().split("&")) {
            String[] parts = pair.split("=", 2);
            if (!parts[0].isEmpty()) {
                query.put(parts[0], parts.length > 1 ? parts[1] : "");
            }
        }
        return query;
    }

    /** The headers without those that are Open Runtimes' own. */
    public Map<String, String> getHeaders() {
        Map<String, String> headers = new LinkedHashMap<>(request.getHeaders());
        headers.keySet().removeIf(name -> name.startsWith("x-open-runtimes-"));
        return headers;
    }

    /** The body read as the content-type says: an object of JSON, or text. */
    public Object getBody() {
        String type = request.getHeaders().getOrDefault("content-type", "text/plain");
        return type.startsWith("application/json") ? request.getJson() : request.getText();
    }

    /** Writes a line of the log at a level. */
    public void log(String level, Object[] messages) {
        log.accept(level, Stream.of(messages).map(Call::text).collect(Collectors.joining(" ")));
    }

    private static String text(Object message) {
        return message instanceof Map || message instanceof List ? Json.write(message) : String.valueOf(message);
    }

    private String authority() {
        Map<String, String> headers = request.getHeaders();
        return headers.getOrDefault("x-forwarded-host", headers.getOrDefault("host", "localhost"));
    }

    private int usualPort() {
        return getScheme().equals("https") ? 443 : 80;
    }
}
