package io.openruntimes.java;

import io.openruntimes.Call;
import java.util.Map;
import martlet.Json;

/** A request. */
public final class RuntimeRequest {
    private final Call call;

    RuntimeRequest(Call call) {
        this.call = call;
    }

    /** {@code GET}, {@code POST} … */
    public String getMethod() {
        return call.getRequest().getMethod();
    }

    /** {@code http} or {@code https}. */
    public String getScheme() {
        return call.getScheme();
    }

    /** The host without its port. */
    public String getHost() {
        return call.getHost();
    }

    /** The port. */
    public int getPort() {
        return call.getPort();
    }

    /** The path. */
    public String getPath() {
        return call.getRequest().getPath();
    }

    /** The query by names, as it was sent. */
    public Map<String, String> getQuery() {
        return call.getQuery();
    }

    /** The query as it was sent. */
    public String getQueryString() {
        return call.getRequest().getQueryString();
    }

    /** The headers, names in lower case. */
    public Map<String, String> getHeaders() {
        return call.getHeaders();
    }

    /** The body. */
    public byte[] getBodyBinary() {
        return call.getRequest().getBody();
    }

    /** The body as text. */
    public String getBodyText() {
        return call.getRequest().getText();
    }

    /** The body, an object of JSON. */
    @SuppressWarnings("unchecked")
    public Map<String, Object> getBodyJson() {
        return (Map<String, Object>) Json.read(getBodyText());
    }

    /** The body: an object where the content-type is JSON, else text. */
    public Object getBody() {
        return call.getBody();
    }

    /** An older name of {@link #getBodyText}. */
    public String getBodyRaw() {
        return getBodyText();
    }

    /** The whole address. */
    public String getUrl() {
        return call.getUrl();
    }
}
