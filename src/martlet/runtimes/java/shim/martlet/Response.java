package martlet;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/** A body with a status and headers: {@code Response.of("teapot").status(418).header("x-colour", "blue")}. */
public final class Response {
    private final Object body;
    private final List<Map.Entry<String, String>> headers = new ArrayList<>();
    private int status;

    private Response(Object body) {
        this.body = body;
        this.status = body == null ? 204 : 200;
    }

    /** A response with whatever a handler may return as its body. */
    public static Response of(Object body) {
        return new Response(body);
    }

    /** A response whose body is written piece by piece. */
    public static Response streaming(StreamingBody body) {
        return new Response(body);
    }

    /** A response that sends the client elsewhere (302). */
    public static Response redirect(String location) {
        return new Response(null).status(302).header("location", location);
    }

    /** Sets the status, 200 to 599. */
    public Response status(int status) {
        if (status < 200 || status > 599) {
            throw new IllegalArgumentException(status + " is not an HTTP status (200 to 599)");
        }
        this.status = status;
        return this;
    }

    /** Adds a header; a content-type replaces the one that follows from the body. */
    public Response header(String name, String value) {
        headers.add(Map.entry(name, value));
        return this;
    }

    /** The status. */
    public int getStatus() {
        return status;
    }

    /** The headers in the order they were added. */
    public List<Map.Entry<String, String>> getHeaders() {
        return headers;
    }

    /** The body as it was given. */
    public Object getBody() {
        return body;
    }
}
