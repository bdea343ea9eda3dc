package martlet.shim;

import java.io.IOException;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;

/**
 * Text for the log as frames: the byte 0x1e and one line of JSON, each written at once and at most as long as a pipe
 * takes in one piece. Longer text becomes several frames, cut between its lines where that is possible.
 */
final class Frame {
    private static final int BYTES = 4096;
    private static final int ESCAPE = 6;

    private final byte[] bytes = new byte[BYTES];
    private int length;

    private Frame(String start) {
        byte[] ascii = start.getBytes(StandardCharsets.US_ASCII);
        System.arraycopy(ascii, 0, bytes, 0, ascii.length);
        length = ascii.length;
    }

    /** Writes text as frames of a stream. Never fails: where nobody reads, frames are lost. */
    static void write(OutputStream out, String stream, String request, String text) {
        String start = "\u001e{\"t\":" + time() + ",\"id\":" + quoted(request) + ",\"s\":" + quoted(stream) + ",\"m\":\"";
        try {
            int at = 0;
            do {
                Frame frame = new Frame(start);
                at = frame.fill(text, at);
                frame.add("\"}\n");
                out.write(frame.bytes, 0, frame.length);
            } while (at < text.length());
        } catch (IOException unread) {
            return;
        }
    }

    /** Adds as much as there is room for; returns where in the text the rest begins. */
    private int fill(String text, int start) {
        int lengthAtLine = 0;
        int afterLine = 0;
        int at = start;
        while (at < text.length()) {
            if (length > BYTES - ESCAPE - 3) {
                if (afterLine > 0) {
                    length = lengthAtLine;
                    return afterLine;
                }
                return at;
            }
            int character = text.codePointAt(at);
            at += Character.charCount(character);
            if (character == '\n') {
                lengthAtLine = length;
                afterLine = at;
            }
            add(character);
        }
        return at;
    }

    private void add(int character) {
        if (character == '"' || character == '\\') {
            bytes[length++] = '\\';
            bytes[length++] = (byte) character;
        } else if (character < ' ') {
            add(character < 16 ? "\\u000" : "\\u001");
            bytes[length++] = (byte) Character.forDigit(character & 15, 16);
        } else if (character < 0x80) {
            bytes[length++] = (byte) character;
        } else {
            byte[] encoded = Character.toString(character).getBytes(StandardCharsets.UTF_8);
            System.arraycopy(encoded, 0, bytes, length, encoded.length);
            length += encoded.length;
        }
    }

    private void add(String ascii) {
        for (int at = 0; at < ascii.length(); at++) {
            bytes[length++] = (byte) ascii.charAt(at);
        }
    }

    private static String time() {
        long now = System.currentTimeMillis();
        return now / 1000 + "." + String.valueOf(1000 + now % 1000).substring(1);
    }

    private static String quoted(String text) {
        if (text == null) {
            return "null";
        }
        StringBuilder safe = new StringBuilder("\"");
        for (int at = 0; at < Math.min(text.length(), 128); at++) {
            char character = text.charAt(at);
            safe.append(character < ' ' || character > '~' || character == '"' || character == '\\' ? '?' : character);
        }
        return safe.append('"').toString();
    }
}
