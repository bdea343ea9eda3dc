package martlet.shim;

/** The peer sent what is not acceptable HTTP. The connection cannot go on. */
final class BadRequest extends Exception {
    final int status;

    BadRequest(int status, String message) {
        super(message);
        this.status = status;
    }
}
