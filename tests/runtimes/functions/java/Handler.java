import java.util.Arrays;
import java.util.Collections;
import java.util.Map;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.logging.Logger;
import martlet.Request;
import martlet.Response;

/** What every runtime is tested with. */
public class Handler {
    private static final Logger LOGGER = Logger.getLogger("contract");

    private final AtomicInteger count = new AtomicInteger();

    record Greeting(String hello, String unicode, Object list) {}

    record Inspection(String method, String path, Map<String, String> query, Map<String, String> headers, int length) {}

    public Object handle(Request request) throws Exception {
        switch (request.getPath()) {
            case "/json":
                return new Greeting("world", "żółw 🐢", Arrays.asList(1, 2.5, null, true));
            case "/echo":
                return Response.of(request.getBody()).header("content-type", request.getHeader("Content-Type"));
            case "/inspect":
                return new Inspection(request.getMethod(), request.getPath(), request.getQuery(), request.getHeaders(),
                        request.getBody().length);
            case "/text":
                return "text ✓";
            case "/binary":
                byte[] bytes = new byte[256];
                for (int value = 0; value < 256; value++) {
                    bytes[value] = (byte) value;
                }
                return bytes;
            case "/empty":
                return null;
            case "/status":
                return Response.of("teapot").status(418).header("x-colour", "blue");
            case "/raise":
                throw new IllegalStateException("the reason ✗");
            case "/crash":
                System.exit(3);
                return null;
            case "/sleep":
                int slept = Integer.parseInt(request.getQuery().get("ms"));
                Thread.sleep(slept);
                return Map.of("slept", slept);
            case "/environment":
                return Collections.singletonMap("GREETING", System.getenv("GREETING"));
            case "/log":
                System.out.println("to stdout ✓");
                System.err.println("to stderr");
                LOGGER.warning("a warning");
                return "logged";
            case "/say":
                LOGGER.warning(request.getQuery().get("word") + " before");
                Thread.sleep(100);
                LOGGER.warning(request.getQuery().get("word") + " after");
                return "said";
            case "/count":
                return Map.of("count", count.incrementAndGet());
            case "/stream":
                return Response.streaming(out -> {
                    out.write("one\n".getBytes());
                    out.flush();
                    Thread.sleep(300);
                    out.write("two\n".getBytes());
                }).header("content-type", "text/plain");
            case "/length":
                return Map.of("length", request.getBody().length);
            case "/large":
                return "x".repeat(5_000_000);
            case "/split":
                return Response.of("").header("x-colour", "blue\r\nx-other: 1");
            case "/unmodified":
                return Response.of("unseen").status(304);
            case "/break":
                return Response.streaming(out -> {
                    out.write("one\n".getBytes());
                    out.flush();
                    throw new IllegalStateException("the reason");
                });
            default:
                return Response.of(Map.of("error", "no such path")).status(404);
        }
    }
}
