package io.openruntimes.java;

import io.openruntimes.Output;
import java.util.Map;

/** A response. */
public final class RuntimeOutput implements Output {
    private final byte[] body;
    private final int statusCode;
    private final Map<String, String> headers;

    /** A response of these parts. */
    public RuntimeOutput(byte[] body, int statusCode, Map<String, String> headers) {
        this.body = body;
        this.statusCode = statusCode;
        this.headers = headers;
    }

    @Override
    public byte[] getBody() {
        return body;
    }

    @Override
    public int getStatusCode() {
        return statusCode;
    }

    @Override
    public Map<String, String> getHeaders() {
        return headers;
    }
}
