package io.openruntimes.java;

import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import martlet.Json;

/** Makes responses. */
public final class RuntimeResponse {
    /** Text. */
    public RuntimeOutput text(String body) {
        return text(body, 200);
    }

    /** Text with a status. */
    public RuntimeOutput text(String body, int statusCode) {
        return text(body, statusCode, Map.of());
    }

    /** Text with a status and headers. */
    public RuntimeOutput text(String body, int statusCode, Map<String, String> headers) {
        return output(body, statusCode, headers, "content-type", "text/plain");
    }

    /** An older name of {@link #text(String)}. */
    public RuntimeOutput send(String body) {
        return text(body);
    }

    /** An older name of {@link #text(String, int)}. */
    public RuntimeOutput send(String body, int statusCode) {
        return text(body, statusCode);
    }

    /** An older name of {@link #text(String, int, Map)}. */
    public RuntimeOutput send(String body, int statusCode, Map<String, String> headers) {
        return text(body, statusCode, headers);
    }

    /** An object as JSON. */
    public RuntimeOutput json(Map<String, Object> json) {
        return json(json, 200);
    }

    /** An object as JSON, with a status. */
    public RuntimeOutput json(Map<String, Object> json, int statusCode) {
        return json(json, statusCode, Map.of());
    }

    /** An object as JSON, with a status and headers. */
    public RuntimeOutput json(Map<String, Object> json, int statusCode, Map<String, String> headers) {
        return output(Json.write(json), statusCode, headers, "content-type", "application/json");
    }

    /** Bytes. */
    public RuntimeOutput binary(byte[] body) {
        return binary(body, 200);
    }

    /** Bytes with a status. */
    public RuntimeOutput binary(byte[] body, int statusCode) {
        return binary(body, statusCode, Map.of());
    }

    /** Bytes with a status and headers. */
    public RuntimeOutput binary(byte[] body, int statusCode, Map<String, String> headers) {
        return new RuntimeOutput(body, statusCode, headers);
    }

    /** Nothing (204). */
    public RuntimeOutput empty() {
        return new RuntimeOutput(new byte[0], 204, Map.of());
    }

    /** Sends the client elsewhere (301). */
    public RuntimeOutput redirect(String url) {
        return redirect(url, 301);
    }

    /** Sends the client elsewhere. */
    public RuntimeOutput redirect(String url, int statusCode) {
        return redirect(url, statusCode, Map.of());
    }

    /** Sends the client elsewhere, with headers. */
    public RuntimeOutput redirect(String url, int statusCode, Map<String, String> headers) {
        return output("", statusCode, headers, "location", url);
    }

    private static RuntimeOutput output(String body, int statusCode, Map<String, String> headers, String name, String value) {
        Map<String, String> all = new LinkedHashMap<>();
        headers.forEach((key, text) -> all.put(key.toLowerCase(Locale.ROOT), text));
        all.putIfAbsent(name, value);
        return new RuntimeOutput(body.getBytes(StandardCharsets.UTF_8), statusCode, all);
    }
}
