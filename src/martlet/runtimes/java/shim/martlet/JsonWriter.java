package martlet;

import java.lang.reflect.Array;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.Iterator;
import java.util.Map;
import java.util.Optional;

/** One value as JSON. */
final class JsonWriter {
    private static final String HEX = "0123456789abcdef";

    private final StringBuilder out = new StringBuilder();

    void write(Object value) {
        if (value == null || value instanceof Boolean) {
            out.append(value);
        } else if (value instanceof CharSequence || value instanceof Character) {
            string(value.toString());
        } else if (value instanceof Number number) {
            number(number);
        } else if (value instanceof Map<?, ?> map) {
            object(map);
        } else if (value instanceof Iterable<?> items && !(value instanceof java.nio.file.Path)) {
            array(items.iterator());
        } else if (value.getClass().isArray()) {
            array(value);
        } else if (value instanceof Optional<?> optional) {
            write(optional.orElse(null));
        } else if (value instanceof Enum<?> constant) {
            string(constant.name());
        } else if (value.getClass().getClassLoader() == null) {
            string(value.toString()); // a class of the JDK
        } else {
            fields(value);
        }
    }

    @Override
    public String toString() {
        return out.toString();
    }

    private void number(Number number) {
        double value = number.doubleValue();
        if ((number instanceof Double || number instanceof Float) && (Double.isNaN(value) || Double.isInfinite(value))) {
            throw new IllegalArgumentException("JSON has no number " + number);
        }
        out.append(number);
    }

    private void object(Map<?, ?> map) {
        char before = '{';
        for (Map.Entry<?, ?> entry : map.entrySet()) {
            out.append(before);
            string(String.valueOf(entry.getKey()));
            out.append(':');
            write(entry.getValue());
            before = ',';
        }
        out.append(before == '{' ? "{}" : "}");
    }

    private void array(Iterator<?> items) {
        out.append('[');
        while (items.hasNext()) {
            write(items.next());
            if (items.hasNext()) {
                out.append(',');
            }
        }
        out.append(']');
    }

    private void array(Object array) {
        out.append('[');
        for (int index = 0; index < Array.getLength(array); index++) {
            if (index > 0) {
                out.append(',');
            }
            write(Array.get(array, index));
        }
        out.append(']');
    }

    /** Records, classes with getters and Kotlin's data classes alike: the fields in the order they were declared. */
    private void fields(Object value) {
        char before = '{';
        for (Field field : value.getClass().getDeclaredFields()) {
            if (!Modifier.isStatic(field.getModifiers()) && !Modifier.isTransient(field.getModifiers())) {
                Method accessor = accessor(field);
                if (accessor != null || Modifier.isPublic(field.getModifiers())) {
                    out.append(before);
                    string(field.getName());
                    out.append(':');
                    write(read(value, field, accessor));
                    before = ',';
                }
            }
        }
        if (before == '{') {
            throw new IllegalArgumentException("a value of " + value.getClass() + " cannot be sent as JSON");
        }
        out.append('}');
    }

    private static Method accessor(Field field) {
        String name = field.getName();
        String capital = Character.toUpperCase(name.charAt(0)) + name.substring(1);
        for (String candidate : new String[] {"get" + capital, "is" + capital, name}) {
            try {
                Method method = field.getDeclaringClass().getMethod(candidate);
                if (method.getReturnType() == field.getType()) {
                    return method;
                }
            } catch (NoSuchMethodException next) {
                continue;
            }
        }
        return null;
    }

    private static Object read(Object value, Field field, Method accessor) {
        try {
            if (accessor == null) {
                field.setAccessible(true);
                return field.get(value);
            }
            accessor.setAccessible(true);
            return accessor.invoke(value);
        } catch (ReflectiveOperationException error) {
            throw new IllegalArgumentException("the field " + field.getName() + " of " + value.getClass() + " cannot be read", error);
        }
    }

    private void string(String text) {
        out.append('"');
        int copied = 0;
        for (int at = 0; at < text.length(); at++) {
            char character = text.charAt(at);
            if (character >= ' ' && character != '"' && character != '\\') {
                continue;
            }
            out.append(text, copied, at);
            escape(character);
            copied = at + 1;
        }
        out.append(text, copied, text.length()).append('"');
    }

    private void escape(char character) {
        switch (character) {
            case '\n' -> out.append("\\n");
            case '\r' -> out.append("\\r");
            case '\t' -> out.append("\\t");
            case '"', '\\' -> out.append('\\').append(character);
            default -> out.append("\\u00").append(HEX.charAt(character >> 4)).append(HEX.charAt(character & 15));
        }
    }
}
