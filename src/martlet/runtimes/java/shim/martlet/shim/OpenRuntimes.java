package martlet.shim;

import io.openruntimes.Call;
import io.openruntimes.Output;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.FutureTask;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import martlet.Request;
import martlet.Response;

/** What the runtimes of Open Runtimes do around a function: a secret, a timeout, switches of the log, probes. */
final class OpenRuntimes implements Handler {
    private static final String PREFIX = "x-open-runtimes-";
    private static final String SECRET = System.getenv().getOrDefault("OPEN_RUNTIMES_SECRET", "");

    private final Function function;
    private final double startupSeconds;

    /** A function that takes the context which it makes of a call. */
    @FunctionalInterface
    interface Function {
        Object apply(Call call) throws Throwable;
    }

    OpenRuntimes(Function function, double startupSeconds) {
        this.function = function;
        this.startupSeconds = startupSeconds;
    }

    @Override
    public Object handle(Request request) throws Throwable {
        if (request.getPath().equals("/__opr/health")) {
            return "OK";
        }
        if (request.getPath().equals("/__opr/timings")) {
            return "startup=" + startupSeconds;
        }
        if (!SECRET.isEmpty() && !SECRET.equals(request.getHeader(PREFIX + "secret"))) {
            return error("Unauthorized. Provide correct \"x-open-runtimes-secret\" header.");
        }
        String timeout = request.getHeader(PREFIX + "timeout");
        if (timeout != null && !timeout.matches("0*[1-9][0-9]{0,8}")) {
            return error("Header \"x-open-runtimes-timeout\" must be an integer greater than 0.");
        }
        boolean logging = !"disabled".equals(request.getHeader(PREFIX + "logging"));
        Call call = new Call(request, logging ? Log::write : (level, text) -> { });
        try {
            Object result = timeout == null ? function.apply(call) : within(Long.parseLong(timeout), call);
            return response(result).header(PREFIX + "log-id", logId(request));
        } catch (TimeoutException late) {
            Log.write("error", "Execution timed out.");
            return error("Execution timed out.");
        }
    }

    private Object within(long seconds, Call call) throws Throwable {
        String request = Log.request();
        FutureTask<Object> task = new FutureTask<>(() -> {
            Log.begin(request);
            try {
                return function.apply(call);
            } catch (Exception | Error error) {
                throw error;
            } catch (Throwable error) {
                throw new ExecutionException(error);
            }
        });
        Thread thread = new Thread(task, "request");
        thread.setDaemon(true);
        thread.start();
        try {
            return task.get(seconds, TimeUnit.SECONDS);
        } catch (ExecutionException error) {
            throw error.getCause();
        } finally {
            task.cancel(true);
        }
    }

    private static Response response(Object result) {
        if (!(result instanceof Output output)) {
            throw new IllegalStateException(
                    "Return statement missing. return context.res.empty() if no response is expected.");
        }
        Response response = Response.of(output.getBody().length == 0 ? null : output.getBody()).status(output.getStatusCode());
        for (Map.Entry<String, String> header : output.getHeaders().entrySet()) {
            String name = header.getKey().toLowerCase(Locale.ROOT);
            if (name.equals("content-type")) {
                response.header(name, withCharset(header.getValue()));
            } else if (!name.startsWith(PREFIX)) {
                response.header(name, header.getValue());
            }
        }
        return response;
    }

    private static String withCharset(String type) {
        String lower = type.toLowerCase(Locale.ROOT);
        boolean text = lower.startsWith("text/") || lower.startsWith("application/json");
        return text && !lower.contains("charset=") ? lower + "; charset=utf-8" : type;
    }

    private static String logId(Request request) {
        String given = request.getHeader(PREFIX + "log-id");
        return given != null ? given : Long.toHexString(ThreadLocalRandom.current().nextLong());
    }

    private static Response error(String message) {
        return Response.of(message).status(500);
    }
}
