package martlet.shim;

import java.io.IOException;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import martlet.Json;
import martlet.Request;

/** Serves one listener: each connection has a thread, from accept to close. */
final class Server {
    private static final String OURS = "/_martlet/";

    private final Handler handler;
    private final long maxBody;
    private final Map<Thread, Connection> connections = new ConcurrentHashMap<>();
    private volatile boolean stopping;

    Server(Handler handler, long maxBody) {
        this.handler = handler;
        this.maxBody = maxBody;
    }

    /** Accepts connections until the process ends. */
    void run(ServerSocketChannel listener) throws IOException {
        while (true) {
            SocketChannel channel = listener.accept();
            Connection connection = new Connection(channel, maxBody);
            Thread thread = new Thread(() -> serve(connection), "connection");
            thread.setDaemon(true);
            connections.put(thread, connection);
            if (stopping) {
                connection.end();
            }
            thread.start();
        }
    }

    /** Waits until the requests that run are answered; later ones are not begun. */
    void drain() throws InterruptedException {
        stopping = true;
        for (Map.Entry<Thread, Connection> entry : connections.entrySet()) {
            entry.getValue().end();
            entry.getKey().join();
        }
    }

    /** Serves the requests of one connection, one after another. */
    void serve(Connection connection) {
        try {
            while (serveOne(connection)) {
                continue;
            }
        } catch (IOException gone) {
            return;
        } finally {
            connections.remove(Thread.currentThread());
            connection.close();
        }
    }

    /** Returns whether the connection may go on. */
    private boolean serveOne(Connection connection) throws IOException {
        Head head;
        byte[] body;
        try {
            head = connection.head();
            body = head == null ? null : connection.body(head);
        } catch (BadRequest error) {
            connection.refuse(error);
            return false;
        }
        if (head == null) {
            return false;
        }
        boolean ours = head.target.startsWith(OURS);
        Exchange exchange = new Exchange(connection, head, ours ? () -> { } : Log::finish);
        if (ours) {
            answerOurs(head, exchange);
        } else {
            invoke(head, body, exchange);
        }
        return exchange.keepAlive();
    }

    private void invoke(Head head, byte[] body, Exchange exchange) throws IOException {
        Log.begin(head.fields.get("x-request-id"));
        try {
            Object result = handler.handle(new Request(head.method, head.target, head.fields, body));
            Thread.interrupted(); // an interrupt that nobody took notice of would close the connection
            Answer.send(result, exchange);
        } catch (Connection.Disconnected gone) {
            throw gone;
        } catch (Throwable error) {
            Thread.interrupted();
            if (exchange.started()) {
                Log.write("error", Failure.of(error).traceback());
                throw new Connection.Disconnected(error); // the client sees by the missing end that it is not whole
            }
            Failure.answer(error, exchange);
        } finally {
            Log.end();
        }
    }

    private static void answerOurs(Head head, Exchange exchange) throws IOException {
        boolean health = head.method.equals("GET") && head.target.equals(OURS + "health");
        Object document = health
                ? Map.of("status", "ok")
                : Map.of("error", Map.of("type", "NotFound", "message", "there is no " + head.target));
        exchange.reset(health ? 200 : 404).header("content-type", "application/json")
                .whole(Json.write(document).getBytes(StandardCharsets.UTF_8));
    }
}
