package martlet.shim;

import java.nio.charset.StandardCharsets;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;

/** Request line and headers. The grammar is RFC 9112. */
final class Head {
    static final long CHUNKED = -1;

    final String method;
    /** Path and query as sent, percent-encoded, one character a byte. */
    final String target;
    final boolean http11;
    final boolean keepAlive;
    /** Bytes of the body, or {@link #CHUNKED}. */
    final long length;
    /** Names in lower case; values of one that came twice are joined with a comma. */
    final Map<String, String> fields;

    private Head(String[] line, Map<String, String> fields) throws BadRequest {
        this.method = line[0];
        this.target = line[1];
        this.http11 = line[2].equals("HTTP/1.1");
        this.fields = fields;
        this.length = length(fields);
        this.keepAlive = http11 && !fields.getOrDefault("connection", "").toLowerCase(Locale.ROOT).contains("close");
    }

    /** Parses a head, which ends with the line end of its last line. */
    static Head parse(byte[] data, int offset, int length) throws BadRequest {
        String[] lines = new String(data, offset, length, StandardCharsets.ISO_8859_1).split("\r\n");
        String[] line = lines[0].split(" ", -1);
        if (line.length != 3 || !isToken(line[0]) || !isTarget(line[1]) || !line[2].matches("HTTP/1\\.[01]")) {
            throw notHttp();
        }
        Map<String, String> fields = new LinkedHashMap<>();
        for (int index = 1; index < lines.length; index++) {
            int colon = lines[index].indexOf(':');
            if (colon < 0 || !isToken(lines[index].substring(0, colon)) || !isText(lines[index])) {
                throw notHttp();
            }
            String name = lines[index].substring(0, colon).toLowerCase(Locale.ROOT);
            String value = lines[index].substring(colon + 1).strip();
            String joint = name.equals("cookie") ? "; " : ", ";
            fields.merge(name, value, (before, after) -> before + joint + after);
        }
        return new Head(line, fields);
    }

    /** Whether it is a name of a header or method. */
    static boolean isToken(String text) {
        for (int at = 0; at < text.length(); at++) {
            char character = text.charAt(at);
            boolean letter = character < 128 && Character.isLetterOrDigit(character);
            if (!letter && "!#$%&'*+-.^_`|~".indexOf(character) < 0) {
                return false;
            }
        }
        return !text.isEmpty();
    }

    /** Whether it may stand in a header: it does not end the line, and is sent as one byte a character. */
    static boolean isText(String text) {
        for (int at = 0; at < text.length(); at++) {
            char character = text.charAt(at);
            if (character == '\r' || character == '\n' || character == 0 || character > 255) {
                return false;
            }
        }
        return true;
    }

    private static boolean isTarget(String text) {
        return text.equals("*") || text.startsWith("/") && text.chars().allMatch(c -> c > ' ' && c != 127);
    }

    private static long length(Map<String, String> fields) throws BadRequest {
        String length = fields.get("content-length");
        String coding = fields.get("transfer-encoding");
        if (coding != null) {
            if (length != null || !coding.equalsIgnoreCase("chunked")) {
                throw new BadRequest(400, "a body must either have a content-length or be chunked");
            }
            return CHUNKED;
        }
        if (length != null && !length.matches("[0-9]{1,15}")) {
            throw new BadRequest(400, "content-length must be a number of bytes");
        }
        return length == null ? 0 : Long.parseLong(length);
    }

    private static BadRequest notHttp() {
        return new BadRequest(400, "this is not an HTTP/1.1 request");
    }
}
