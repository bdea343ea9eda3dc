package martlet.shim;

import java.io.ByteArrayOutputStream;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.Objects;

/** What the function prints and logs, as frames that say which request they belong to. */
final class Log {
    private static final OutputStream DESCRIPTOR_1 = new FileOutputStream(FileDescriptor.out);
    private static final OutputStream DESCRIPTOR_2 = new FileOutputStream(FileDescriptor.err);
    private static final Lines OUT = new Lines(DESCRIPTOR_1, "stdout");
    private static final Lines ERR = new Lines(DESCRIPTOR_2, "stderr");

    private static final ThreadLocal<String> OF_THREAD = new ThreadLocal<>();
    private static volatile String onlyRequest;
    private static boolean oneAtATime;

    private Log() {}

    /**
     * Replaces System.out and System.err.
     *
     * @param concurrency with 1, whatever is printed while a request runs belongs to it; with more, what its thread prints
     */
    static void install(int concurrency) {
        oneAtATime = concurrency == 1;
        System.setIn(InputStream.nullInputStream());
        System.setOut(new PrintStream(OUT, false, StandardCharsets.UTF_8));
        System.setErr(new PrintStream(ERR, false, StandardCharsets.UTF_8));
        // Read when something logs for the first time, so that functions that do not log do not pay for it.
        System.setProperty("java.util.logging.config.class", Logging.class.getName());
    }

    /** Says that from here on this thread works on that request (null: on none). */
    static void begin(String request) {
        if (oneAtATime) {
            onlyRequest = request;
        } else {
            OF_THREAD.set(request);
        }
    }

    /** Writes the unfinished lines of the request: before its response ends, since whoever has that may look for them. */
    static void finish() {
        OUT.finish(request());
        ERR.finish(request());
    }

    /** Says that the request is answered: its unfinished lines are written, and later ones are not its own. */
    static void end() {
        finish();
        begin(null);
    }

    /** The id of the request that runs here, or null. */
    static String request() {
        return oneAtATime ? onlyRequest : OF_THREAD.get();
    }

    /** Writes text whose stream is a level of the log: info, warning, error … */
    static void write(String level, String text) {
        Frame.write(DESCRIPTOR_2, level, request(), text);
    }

    /** Makes a frame of every line that is complete; what has no line end yet waits, apart for each thread. */
    private static final class Lines extends OutputStream {
        private static final int LONGEST = 64 * 1024;

        private final OutputStream descriptor;
        private final String stream;
        private final Map<Thread, Line> unfinished = new HashMap<>();

        Lines(OutputStream descriptor, String stream) {
            this.descriptor = descriptor;
            this.stream = stream;
        }

        @Override
        public void write(int single) {
            write(new byte[] {(byte) single}, 0, 1);
        }

        @Override
        public synchronized void write(byte[] data, int offset, int length) {
            Line line = unfinished.computeIfAbsent(Thread.currentThread(), thread -> new Line(request()));
            int start = offset;
            for (int at = offset; at < offset + length; at++) {
                if (data[at] == '\n') {
                    line.text.write(data, start, at - start);
                    emit(line);
                    start = at + 1;
                }
            }
            line.text.write(data, start, offset + length - start);
            if (line.text.size() > LONGEST) {
                emit(line);
            } else if (line.text.size() == 0) {
                unfinished.remove(Thread.currentThread());
            }
        }

        @Override
        public synchronized void flush() {
            Line line = unfinished.remove(Thread.currentThread());
            if (line != null) {
                emit(line);
            }
        }

        synchronized void finish(String request) {
            unfinished.values().removeIf(line -> {
                boolean ended = Objects.equals(line.request, request);
                if (ended) {
                    emit(line);
                }
                return ended;
            });
        }

        private void emit(Line line) {
            Frame.write(descriptor, stream, request(), line.text.toString(StandardCharsets.UTF_8));
            line.text.reset();
        }
    }

    /** What a thread has printed since the last line end. */
    private static final class Line {
        final String request;
        final ByteArrayOutputStream text = new ByteArrayOutputStream();

        Line(String request) {
            this.request = request;
        }
    }
}
