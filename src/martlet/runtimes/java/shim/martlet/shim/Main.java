package martlet.shim;

import java.io.IOException;
import java.nio.channels.ServerSocketChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Map;
import martlet.Context;
import sun.misc.Signal;

/** An instance: loads the user's code and serves it on the listener that is descriptor 0. */
public final class Main {
    private static final Path ANSWER = Path.of("/dev/fd/4");

    private Main() {}

    /** Takes what it needs to know from the environment, see {@code start}. */
    public static void main(String[] arguments) throws Exception {
        Map<String, String> environment = System.getenv();
        Context context = new Context(environment.get("MARTLET_FUNCTION"), Integer.parseInt(environment.get("MARTLET_REVISION")),
                Long.parseLong(environment.get("MARTLET_MEMORY")), Integer.parseInt(environment.get("MARTLET_CONCURRENCY")));
        Log.install(context.concurrency());
        long began = System.nanoTime();
        Handler handler;
        try {
            handler = new Loader(context).load(Code.named(environment.get("MARTLET_HANDLER")));
        } catch (Throwable error) {
            answer(Failure.of(error).toJson());
            System.exit(1);
            return;
        }
        double milliseconds = Math.round((System.nanoTime() - began) / 1e3) / 1e3;
        Server server = new Server(handler, Long.parseLong(environment.get("MARTLET_MAX_BODY")));
        Signal.handle(new Signal("TERM"), signal -> stop(server));
        ServerSocketChannel listener = (ServerSocketChannel) System.inheritedChannel();
        answer("{\"mode\":\"handler\",\"load_ms\":" + milliseconds + "}");
        server.run(listener);
    }

    private static void answer(String line) throws IOException {
        Files.write(ANSWER, (line + "\n").getBytes(StandardCharsets.UTF_8), StandardOpenOption.WRITE);
    }

    /** Ends with the hooks of the user's that {@code Runtime.addShutdownHook} knows. */
    private static void stop(Server server) {
        try {
            server.drain();
        } catch (InterruptedException impatient) {
            Thread.currentThread().interrupt();
        }
        System.exit(0);
    }
}
