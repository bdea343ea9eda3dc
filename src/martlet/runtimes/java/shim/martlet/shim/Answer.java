package martlet.shim;

import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.util.Iterator;
import java.util.Map;
import java.util.stream.BaseStream;
import martlet.Json;
import martlet.Response;
import martlet.StreamingBody;

/** Turns what a handler returned into a response. */
final class Answer {
    private static final String TEXT = "text/plain; charset=utf-8";
    private static final String BYTES = "application/octet-stream";
    private static final int PIECE = 16 * 1024;

    private final Exchange exchange;

    private Answer(Exchange exchange) {
        this.exchange = exchange;
    }

    /**
     * Sends the result: null (204), a String (text), byte[], a stream, iterator or {@link StreamingBody} (piece by piece),
     * a {@link Response} with one of these, or anything else (JSON).
     */
    static void send(Object result, Exchange exchange) throws Exception {
        Response response = result instanceof Response given ? given : Response.of(result);
        exchange.reset(response.getStatus());
        for (Map.Entry<String, String> header : response.getHeaders()) {
            exchange.header(header.getKey(), header.getValue());
        }
        new Answer(exchange).body(response.getBody());
    }

    private void body(Object body) throws Exception {
        if (body == null) {
            exchange.whole(new byte[0]);
        } else if (body instanceof String text) {
            exchange.defaultType(TEXT).whole(text.getBytes(StandardCharsets.UTF_8));
        } else if (body instanceof byte[] bytes) {
            exchange.defaultType(BYTES).whole(bytes);
        } else if (body instanceof StreamingBody streaming) {
            written(streaming);
        } else if (body instanceof InputStream input) {
            try (input) {
                written(out -> input.transferTo(out));
            }
        } else if (body instanceof BaseStream<?, ?> stream) {
            try (stream) {
                pieces(stream.iterator());
            }
        } else {
            other(body);
        }
    }

    private void other(Object body) throws Exception {
        Iterator<?> pieces = pieceByPiece(body);
        if (pieces != null) {
            try (AutoCloseable closing = body instanceof AutoCloseable closeable ? closeable : () -> { }) {
                pieces(pieces);
            }
        } else {
            exchange.defaultType("application/json").whole(Json.write(body).getBytes(StandardCharsets.UTF_8));
        }
    }

    /** The iterator that a value is or that it can make, where it is no collection (a sequence of Kotlin); else null. */
    private static Iterator<?> pieceByPiece(Object body) throws ReflectiveOperationException {
        if (body instanceof Iterator<?> iterator) {
            return iterator;
        }
        if (body instanceof Iterable || body instanceof Map || body.getClass().isArray()) {
            return null;
        }
        try {
            Method iterator = body.getClass().getMethod("iterator");
            iterator.setAccessible(true);
            return iterator.getReturnType() == Iterator.class ? (Iterator<?>) iterator.invoke(body) : null;
        } catch (NoSuchMethodException none) {
            return null;
        }
    }

    /** The first piece is waited for, so that what raises before it still becomes a 500. */
    private void pieces(Iterator<?> pieces) throws Exception {
        while (pieces.hasNext() && !(exchange.started() && exchange.bodiless())) {
            Object piece = pieces.next();
            boolean text = piece instanceof CharSequence;
            if (!text && !(piece instanceof byte[])) {
                throw new IllegalArgumentException("a stream is made of String and byte[], and this piece is " + piece);
            }
            byte[] bytes = text ? piece.toString().getBytes(StandardCharsets.UTF_8) : (byte[]) piece;
            piece(bytes, 0, bytes.length, text ? TEXT : BYTES);
        }
        last();
    }

    private void written(StreamingBody body) throws Exception {
        OutputStream out = new Pieces();
        body.writeTo(out);
        out.flush();
        last();
    }

    private void piece(byte[] data, int offset, int length, String type) throws IOException {
        if (!exchange.started()) {
            exchange.defaultType(type);
        }
        if (length > 0 && !(exchange.started() && exchange.bodiless())) {
            exchange.piece(data, offset, length, true);
        }
    }

    private void last() throws IOException {
        if (!(exchange.started() && exchange.bodiless())) {
            exchange.piece(new byte[0], 0, 0, false);
        }
    }

    /** Sends what is written as pieces: when it is flushed, or there is enough. */
    private final class Pieces extends OutputStream {
        private final byte[] buffer = new byte[PIECE];
        private int length;

        @Override
        public void write(int single) throws IOException {
            write(new byte[] {(byte) single}, 0, 1);
        }

        @Override
        public void write(byte[] data, int offset, int count) throws IOException {
            if (count > PIECE - length) {
                flush();
            }
            if (count > PIECE) {
                piece(data, offset, count, BYTES);
            } else {
                System.arraycopy(data, offset, buffer, length, count);
                length += count;
            }
        }

        @Override
        public void flush() throws IOException {
            if (length > 0) {
                piece(buffer, 0, length, BYTES);
                length = 0;
            }
        }
    }
}
