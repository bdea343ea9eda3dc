package martlet.shim;

import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.SocketChannel;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;

/** One connection, read and written by one thread. */
final class Connection {
    private static final int MAX_HEAD = 64 * 1024;
    private static final int PIECE = 64 * 1024;

    private final SocketChannel channel;
    private final long maxBody;
    private byte[] buffer = new byte[4096];
    private int at;
    private int end;
    private volatile boolean idle;
    private volatile boolean ending;

    Connection(SocketChannel channel, long maxBody) {
        this.channel = channel;
        this.maxBody = maxBody;
    }

    /** Waits for a request; null when there is to be no further one. */
    Head head() throws BadRequest, IOException {
        int searched = at;
        while (true) {
            for (; searched + 3 < end; searched++) {
                if (buffer[searched] == '\r' && buffer[searched + 1] == '\n'
                        && buffer[searched + 2] == '\r' && buffer[searched + 3] == '\n') {
                    Head head = Head.parse(buffer, at, searched + 2 - at);
                    at = searched + 4;
                    if (head.length > maxBody) {
                        throw tooLarge();
                    }
                    return head;
                }
            }
            if (end - at > MAX_HEAD) {
                throw new BadRequest(431, "the request's headers are too large");
            }
            searched -= at;
            idle = true;
            if (ending || !fill()) {
                return null;
            }
            idle = false;
            searched += at;
        }
    }

    /** The whole body of the request. */
    byte[] body(Head head) throws BadRequest, IOException {
        return head.length == Head.CHUNKED ? chunks() : exactly((int) head.length);
    }

    /** Sends all of the bytes. */
    void send(byte[] data, int offset, int length) throws Disconnected {
        // In pieces: the JDK copies each into memory outside the heap, which it keeps for the thread.
        ByteBuffer view = ByteBuffer.wrap(data, offset, length);
        for (int sent = offset; sent < offset + length; ) {
            view.limit(Math.min(sent + PIECE, offset + length));
            sent += write(view);
        }
    }

    /** Says what was wrong with a request. */
    void refuse(BadRequest error) throws Disconnected {
        byte[] message = error.getMessage().getBytes(StandardCharsets.US_ASCII);
        byte[] head = ("HTTP/1.1 " + error.status + " " + Status.phrase(error.status) + "\r\ncontent-type: text/plain\r\n"
                + "connection: close\r\ncontent-length: " + message.length + "\r\n\r\n").getBytes(StandardCharsets.US_ASCII);
        send(head, 0, head.length);
        send(message, 0, message.length);
    }

    /** Makes this the last request of the connection; called from another thread. */
    void end() {
        ending = true;
        if (idle) {
            try {
                channel.shutdownInput();
            } catch (IOException gone) {
                return;
            }
        }
    }

    void close() {
        try {
            channel.close();
        } catch (IOException gone) {
            return;
        }
    }

    private int write(ByteBuffer data) throws Disconnected {
        try {
            return channel.write(data);
        } catch (IOException error) {
            throw new Disconnected(error);
        }
    }

    private byte[] exactly(int length) throws IOException {
        byte[] body = new byte[length];
        int had = Math.min(length, end - at);
        System.arraycopy(buffer, at, body, 0, had);
        at += had;
        while (had < length) {
            int count = channel.read(ByteBuffer.wrap(body, had, Math.min(PIECE, length - had)));
            if (count < 0) {
                throw new EOFException();
            }
            had += count;
        }
        return body;
    }

    private byte[] chunks() throws BadRequest, IOException {
        ByteArrayOutputStream body = new ByteArrayOutputStream();
        while (true) {
            String line = line();
            String size = line.split(";", 2)[0].strip();
            if (!size.matches("[0-9A-Fa-f]{1,8}")) {
                throw new BadRequest(400, "a chunk does not begin with its size");
            }
            long length = Long.parseLong(size, 16);
            if (length == 0) {
                break;
            }
            if (body.size() + length > maxBody) {
                throw tooLarge();
            }
            body.write(exactly((int) length));
            if (!line().isEmpty()) {
                throw new BadRequest(400, "a chunk is longer than its size says");
            }
        }
        while (!line().isEmpty()) {
            continue; // trailers mean nothing to a function
        }
        return body.toByteArray();
    }

    private String line() throws BadRequest, IOException {
        int length = 0;
        while (true) {
            for (; at + length + 1 < end; length++) {
                if (buffer[at + length] == '\r' && buffer[at + length + 1] == '\n') {
                    String line = new String(buffer, at, length, StandardCharsets.ISO_8859_1);
                    at += length + 2;
                    return line;
                }
            }
            if (end - at > MAX_HEAD) {
                throw new BadRequest(400, "a line between chunks is too long");
            }
            if (!fill()) {
                throw new EOFException();
            }
        }
    }

    /** Receives more bytes behind those that are buffered; false at the end. */
    private boolean fill() throws IOException {
        if (at > 0) {
            System.arraycopy(buffer, at, buffer, 0, end - at);
            end -= at;
            at = 0;
        }
        if (end == buffer.length) {
            buffer = Arrays.copyOf(buffer, 2 * end);
        }
        int count = channel.read(ByteBuffer.wrap(buffer, end, buffer.length - end));
        end += Math.max(count, 0);
        return count >= 0;
    }

    private BadRequest tooLarge() {
        return new BadRequest(413, "the request body is over " + maxBody + " bytes");
    }

    /** The peer went away before the response was complete. */
    static final class Disconnected extends IOException {
        Disconnected(Throwable cause) {
            super(cause);
        }
    }
}
