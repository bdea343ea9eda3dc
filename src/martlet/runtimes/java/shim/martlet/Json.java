package martlet;

/** JSON as the types that Java has for it: maps, lists, strings, numbers, booleans and null. */
public final class Json {
    private Json() {}

    /**
     * Reads one value: {@code Map<String, Object>}, {@code List<Object>}, String, Long (whole numbers that fit), Double,
     * Boolean or null.
     *
     * @throws BadJson the text is anything else
     */
    public static Object read(String text) {
        return new JsonReader(text).read();
    }

    /**
     * Writes a value. Besides the types of {@link #read}: records and other objects with their public fields and those
     * that have a getter, any Iterable, array, Optional and enum; dates, UUIDs, URIs and paths become text.
     *
     * @throws IllegalArgumentException the value has no JSON: a number that is not finite, an object without anything to read
     */
    public static String write(Object value) {
        JsonWriter writer = new JsonWriter();
        writer.write(value);
        return writer.toString();
    }
}
