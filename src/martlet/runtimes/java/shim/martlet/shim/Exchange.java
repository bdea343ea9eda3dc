package martlet.shim;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Locale;
import martlet.Json;

/**
 * One response on its way. The head goes with the first piece of the body: with a content-length when that is also the
 * last one, else chunked (and ended by closing the connection where the peer speaks HTTP/1.0).
 */
final class Exchange {
    /** Bytes up to which copying a body is cheaper than a second system call. */
    private static final int TOGETHER = 32 * 1024;

    private final Connection connection;
    private final Head head;
    private final StringBuilder fields = new StringBuilder();
    private int status = 200;
    private Long promised;
    private long sent;
    private boolean typed;
    private boolean chunked;
    private boolean started;
    private boolean keepAlive;
    private final Runnable beforeEnd;

    /** What {@code beforeEnd} does is done before the last bytes of the response are sent. */
    Exchange(Connection connection, Head head, Runnable beforeEnd) {
        this.connection = connection;
        this.head = head;
        this.beforeEnd = beforeEnd;
        this.keepAlive = head.keepAlive;
    }

    /** Whether bytes were sent, so that it is too late for another response. */
    boolean started() {
        return started;
    }

    /** Whether the connection may carry another request. */
    boolean keepAlive() {
        return keepAlive;
    }

    /** Whether what is sent of a body goes nowhere. */
    boolean bodiless() {
        return head.method.equals("HEAD") || status == 204 || status == 304;
    }

    /** Begins anew: whatever was set of a response that is not started is forgotten. */
    Exchange reset(int status) {
        this.status = status;
        fields.setLength(0);
        promised = null;
        typed = false;
        return this;
    }

    /**
     * Adds a header; those that say how the body is framed are left to this class.
     *
     * @throws IllegalArgumentException it has characters that would end the line, or a content-length is not a number
     */
    Exchange header(String name, String value) {
        if (value == null || !Head.isToken(name) || !Head.isText(value)) {
            throw new IllegalArgumentException(Json.write(name) + ": " + Json.write(value) + " cannot be sent as a header");
        }
        switch (name.toLowerCase(Locale.ROOT)) {
            case "connection", "keep-alive", "transfer-encoding" -> { }
            case "content-length" -> promised = Long.valueOf(value);
            case "content-type" -> {
                typed = true;
                line(name, value);
            }
            default -> line(name, value);
        }
        return this;
    }

    /** Sets the content-type, unless there is one. */
    Exchange defaultType(String type) {
        return typed ? this : header("content-type", type);
    }

    /** Sends a whole response. */
    void whole(byte[] body) throws IOException {
        piece(body, 0, body.length, false);
    }

    /**
     * Sends a piece of the body.
     *
     * @throws IllegalStateException the body is longer or shorter than the content-length promised
     */
    void piece(byte[] data, int offset, int length, boolean more) throws IOException {
        sent += length;
        if (!bodiless() && promised != null && (sent > promised || !more && sent < promised)) {
            throw new IllegalStateException("the body has " + sent + " bytes where its content-length says " + promised);
        }
        String before = started ? "" : begin(more);
        if (!more) {
            beforeEnd.run();
        }
        if (bodiless()) {
            send(before, data, 0, 0, "");
        } else if (chunked) {
            String size = length == 0 ? "" : Integer.toHexString(length) + "\r\n";
            String after = (length == 0 ? "" : "\r\n") + (more ? "" : "0\r\n\r\n");
            send(before + size, data, offset, length, after);
        } else {
            send(before, data, offset, length, "");
        }
    }

    private String begin(boolean more) {
        started = true;
        if (status != 204 && status != 304) {
            if (promised == null && !more) {
                promised = sent;
            }
            if (promised != null) {
                line("content-length", promised.toString());
            } else if (head.http11) {
                chunked = true;
                line("transfer-encoding", "chunked");
            } else {
                keepAlive = false;
            }
        }
        if (!keepAlive) {
            line("connection", "close");
        }
        return "HTTP/1.1 " + status + " " + Status.phrase(status) + "\r\n" + fields + "\r\n";
    }

    private void line(String name, String value) {
        fields.append(name).append(": ").append(value).append("\r\n");
    }

    private void send(String before, byte[] data, int offset, int length, String after) throws IOException {
        if (length > TOGETHER) {
            send(before, data, 0, 0, "");
            connection.send(data, offset, length);
            send(after, data, 0, 0, "");
            return;
        }
        ByteBuffer all = ByteBuffer.allocate(before.length() + length + after.length());
        all.put(before.getBytes(StandardCharsets.ISO_8859_1));
        all.put(data, offset, length).put(after.getBytes(StandardCharsets.ISO_8859_1));
        connection.send(all.array(), 0, all.position());
    }
}
