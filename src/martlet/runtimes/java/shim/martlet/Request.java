package martlet;

import java.nio.charset.Charset;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** One request. */
public final class Request {
    private static final Pattern CHARSET = Pattern.compile("charset=[\"' ]*([^;\"' ]+)", Pattern.CASE_INSENSITIVE);

    private final long arrived = System.nanoTime();
    private final String method;
    private final String path;
    private final String queryString;
    private final Map<String, String> headers;
    private final byte[] body;
    private Map<String, List<String>> queryParams;

    /** A request whose headers have names in lower case, and whose target is as it was sent. */
    public Request(String method, String target, Map<String, String> headers, byte[] body) {
        int question = target.indexOf('?');
        this.method = method;
        this.path = decode(question < 0 ? target : target.substring(0, question), false);
        this.queryString = question < 0 ? "" : target.substring(question + 1);
        this.headers = headers;
        this.body = body;
    }

    /** {@code GET}, {@code POST} … */
    public String getMethod() {
        return method;
    }

    /** The path below the function's root, decoded; begins with a slash. */
    public String getPath() {
        return path;
    }

    /** What follows the question mark, as it was sent. */
    public String getQueryString() {
        return queryString;
    }

    /** The first value of each name in the query. */
    public Map<String, String> getQuery() {
        Map<String, String> first = new LinkedHashMap<>();
        getQueryParams().forEach((name, values) -> first.put(name, values.get(0)));
        return first;
    }

    /** Every value of each name in the query, in the order sent. */
    public Map<String, List<String>> getQueryParams() {
        if (queryParams == null) {
            queryParams = parseQuery(queryString);
        }
        return queryParams;
    }

    /** The headers, names in lower case; one that came twice has both values, with a comma. */
    public Map<String, String> getHeaders() {
        return headers;
    }

    /** One header, found in any case; null where it was not sent. */
    public String getHeader(String name) {
        return headers.get(name.toLowerCase(Locale.ROOT));
    }

    /** The whole body. */
    public byte[] getBody() {
        return body;
    }

    /** The body as text, in the charset that content-type names (UTF-8 by default). */
    public String getText() {
        return new String(body, charset());
    }

    /**
     * The body read as JSON, see {@link Json#read}; an empty object where it is empty. A body that is not JSON is
     * answered with 400 where the handler lets the exception pass.
     */
    public Object getJson() throws BadJson {
        return body.length == 0 ? new LinkedHashMap<String, Object>() : Json.read(new String(body, StandardCharsets.UTF_8));
    }

    /** The id that the response, the log and the history have; null where there is none. */
    public String getId() {
        return headers.get("x-request-id");
    }

    /** The name of the function. */
    public String getFunction() {
        return headers.get("x-faas-function");
    }

    /** The revision that runs. */
    public String getRevision() {
        return headers.get("x-faas-revision");
    }

    /** Milliseconds the request had when it arrived; null where there is no limit. */
    public Long getDeadlineMs() {
        String value = headers.get("x-faas-deadline");
        return value == null || !value.matches("\\d{1,18}") ? null : Long.valueOf(value);
    }

    /** Milliseconds that are left of {@link #getDeadlineMs} now. */
    public Long getRemainingMs() {
        Long deadline = getDeadlineMs();
        return deadline == null ? null : deadline - (System.nanoTime() - arrived) / 1_000_000;
    }

    @Override
    public String toString() {
        return method + " " + path;
    }

    private Charset charset() {
        Matcher named = CHARSET.matcher(headers.getOrDefault("content-type", ""));
        try {
            return named.find() ? Charset.forName(named.group(1)) : StandardCharsets.UTF_8;
        } catch (IllegalArgumentException unknown) {
            return StandardCharsets.UTF_8;
        }
    }

    private static Map<String, List<String>> parseQuery(String query) {
        Map<String, List<String>> values = new LinkedHashMap<>();
        for (String pair : query.split("&")) {
            if (!pair.isEmpty()) {
                int equals = pair.indexOf('=');
                String name = equals < 0 ? pair : pair.substring(0, equals);
                String value = equals < 0 ? "" : pair.substring(equals + 1);
                values.computeIfAbsent(decode(name, true), key -> new ArrayList<>()).add(decode(value, true));
            }
        }
        return values;
    }

    /** Percent-decodes what arrived as Latin-1, and reads it as UTF-8; an escape that is none stays as it is. */
    private static String decode(String text, boolean plusIsSpace) {
        byte[] bytes = text.getBytes(StandardCharsets.ISO_8859_1);
        int length = 0;
        for (int at = 0; at < bytes.length; at++, length++) {
            int high = bytes[at] == '%' && at + 2 < bytes.length ? Character.digit(bytes[at + 1], 16) : -1;
            int low = high < 0 ? -1 : Character.digit(bytes[at + 2], 16);
            if (low >= 0) {
                bytes[length] = (byte) (high << 4 | low);
                at += 2;
            } else {
                bytes[length] = plusIsSpace && bytes[at] == '+' ? (byte) ' ' : bytes[at];
            }
        }
        return new String(bytes, 0, length, StandardCharsets.UTF_8);
    }
}
