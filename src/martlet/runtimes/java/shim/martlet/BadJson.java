package martlet;

/** The text is not JSON. A handler that lets it pass for the request's body answers 400. */
public final class BadJson extends RuntimeException {
    BadJson(String message) {
        super(message);
    }
}
