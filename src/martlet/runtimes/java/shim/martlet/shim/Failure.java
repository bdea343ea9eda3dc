package martlet.shim;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Map;
import martlet.BadJson;
import martlet.Json;

/** What people are told when their code raises: an answer, and the stack trace without our own frames in the log. */
record Failure(String type, String message, String traceback) {
    private static final int MESSAGE_CHARACTERS = 4096;

    static Failure of(Throwable error) {
        String message;
        try {
            message = error.getMessage() == null ? "" : error.getMessage();
        } catch (RuntimeException silent) {
            message = "(the exception cannot say its message)";
        }
        String simple = error.getClass().getSimpleName();
        StringWriter trace = new StringWriter();
        try {
            dropOurs(error, 0);
            error.printStackTrace(new PrintWriter(trace, true));
        } catch (RuntimeException silent) {
            trace.write(error.getClass().getName());
        }
        return new Failure(simple.isEmpty() ? error.getClass().getName() : simple,
                message.substring(0, Math.min(message.length(), MESSAGE_CHARACTERS)), trace.toString().stripTrailing());
    }

    /**
     * Answers a request whose handler raised, and logs it: 500 as the contract of instances has it; or 400 and no log
     * where the request's body was not JSON.
     */
    static void answer(Throwable error, Exchange exchange) throws IOException {
        if (error instanceof BadJson) {
            Problem problem = new Problem("about:blank", 400, "bad_json", "The request body is not JSON",
                    "the request body is not JSON: " + error.getMessage(), Log.request());
            send(exchange.reset(400).header("content-type", "application/problem+json"), problem);
            return;
        }
        Failure failure = of(error);
        Log.write("error", failure.traceback);
        StringBuilder name = new StringBuilder();
        failure.type.chars().forEach(c -> name.append(c > ' ' && c < 127 ? (char) c : '?'));
        exchange.reset(500).header("content-type", "application/json").header("x-martlet-error", name.toString());
        send(exchange, new Raised(failure.type, failure.message));
    }

    /** As the answer of a shim whose code did not load. */
    String toJson() {
        return Json.write(Map.of("error", this));
    }

    private static void send(Exchange exchange, Object document) throws IOException {
        exchange.whole(Json.write(document).getBytes(StandardCharsets.UTF_8));
    }

    /** Cuts what called the user's code off the end of the trace, in the exception and in those it came from. */
    private static void dropOurs(Throwable error, int depth) {
        if (error == null || depth > 16) {
            return;
        }
        StackTraceElement[] trace = error.getStackTrace();
        int length = trace.length;
        while (length > 0 && isOurs(trace[length - 1].getClassName())) {
            length--;
        }
        error.setStackTrace(Arrays.copyOf(trace, length));
        dropOurs(error.getCause(), depth + 1);
    }

    private static boolean isOurs(String name) {
        return name.startsWith("martlet.shim.") || name.startsWith("jdk.internal.reflect.")
                || name.startsWith("java.lang.reflect.") || name.equals("java.lang.Thread");
    }

    private record Problem(String type, int status, String code, String title, String detail,
            String request_id) {}

    private record Raised(String type, String message) {}
}
