package martlet;

import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** RFC 8259, by recursive descent. */
final class JsonReader {
    private static final int DEEPEST = 500;

    private final String text;
    private int at;
    private int depth;

    JsonReader(String text) {
        this.text = text;
    }

    Object read() {
        Object value = value();
        if (peek() >= 0) {
            throw bad("something follows the value");
        }
        return value;
    }

    private Object value() {
        switch (peek()) {
            case '{':
                return nested(true);
            case '[':
                return nested(false);
            case '"':
                return string();
            case 't':
                return word("true", true);
            case 'f':
                return word("false", false);
            case 'n':
                return word("null", null);
            default:
                return number();
        }
    }

    private Object nested(boolean object) {
        if (++depth > DEEPEST) {
            throw bad("it is nested deeper than " + DEEPEST + " levels");
        }
        at++;
        Object value = object ? object() : array();
        depth--;
        return value;
    }

    private Map<String, Object> object() {
        Map<String, Object> map = new LinkedHashMap<>();
        if (peek() == '}') {
            at++;
            return map;
        }
        do {
            if (peek() != '"') {
                throw bad("a name in quotes is expected");
            }
            String name = string();
            if (peek() != ':') {
                throw bad("a colon is expected");
            }
            at++;
            map.put(name, value());
        } while (more('}'));
        return map;
    }

    private List<Object> array() {
        List<Object> list = new ArrayList<>();
        if (peek() == ']') {
            at++;
            return list;
        }
        do {
            list.add(value());
        } while (more(']'));
        return list;
    }

    private boolean more(char end) {
        int next = peek();
        if (next != ',' && next != end) {
            throw bad("a comma or " + end + " is expected");
        }
        at++;
        return next == ',';
    }

    private String string() {
        int start = ++at;
        int end = start;
        while (end < text.length() && text.charAt(end) != '"' && text.charAt(end) != '\\' && text.charAt(end) >= ' ') {
            end++;
        }
        at = end;
        if (end < text.length() && text.charAt(end) == '"') {
            at++;
            return text.substring(start, end);
        }
        StringBuilder unescaped = new StringBuilder(text.substring(start, end));
        while (true) {
            char next = next();
            if (next == '"') {
                return unescaped.toString();
            }
            if (next < ' ') {
                throw bad("a control character stands in a string");
            }
            unescaped.append(next == '\\' ? escape() : next);
        }
    }

    private char escape() {
        char next = next();
        switch (next) {
            case '"':
            case '\\':
            case '/':
                return next;
            case 'b':
                return '\b';
            case 'f':
                return '\f';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 't':
                return '\t';
            case 'u':
                int code = 0;
                for (int digit = 0; digit < 4; digit++) {
                    int value = Character.digit(next(), 16);
                    if (value < 0) {
                        throw bad("\\u takes four hexadecimal digits");
                    }
                    code = code << 4 | value;
                }
                return (char) code;
            default:
                throw bad("\\" + next + " is no escape");
        }
    }

    private Object word(String word, Object value) {
        if (!text.startsWith(word, at)) {
            throw bad("a value is expected");
        }
        at += word.length();
        return value;
    }

    private Number number() {
        int start = at;
        take('-');
        boolean zero = take('0');
        if (!zero && !digits()) {
            throw bad("a value is expected");
        }
        boolean whole = true;
        if (take('.')) {
            whole = false;
            if (!digits()) {
                throw bad("digits are expected after the point");
            }
        }
        if (take('e') || take('E')) {
            whole = false;
            if (!take('+')) {
                take('-');
            }
            if (!digits()) {
                throw bad("digits are expected in the exponent");
            }
        }
        String number = text.substring(start, at);
        if (whole) {
            try {
                return Long.valueOf(number);
            } catch (NumberFormatException tooLarge) {
                return Double.valueOf(number);
            }
        }
        return Double.valueOf(number);
    }

    private boolean take(char wanted) {
        boolean there = at < text.length() && text.charAt(at) == wanted;
        at += there ? 1 : 0;
        return there;
    }

    private boolean digits() {
        int start = at;
        while (at < text.length() && text.charAt(at) >= '0' && text.charAt(at) <= '9') {
            at++;
        }
        return at > start;
    }

    /** The next character that is no space, which is not taken; -1 at the end. */
    private int peek() {
        while (at < text.length()) {
            char next = text.charAt(at);
            if (next != ' ' && next != '\n' && next != '\r' && next != '\t') {
                return next;
            }
            at++;
        }
        return -1;
    }

    private char next() {
        if (at >= text.length()) {
            throw bad("it ends within a string");
        }
        return text.charAt(at++);
    }

    private BadJson bad(String problem) {
        return new BadJson(problem + " (character " + (at + 1) + ")");
    }
}
