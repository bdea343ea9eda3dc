package martlet.shim;

import java.io.File;
import java.io.IOException;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.jar.JarFile;
import java.util.stream.Collectors;

/**
 * What the key {@code handler} of a configuration names: a class ({@code Handler}, {@code com.example.Handler}), a class and a
 * method ({@code Handler::greet}), a method of the usual class ({@code greet}), or a source file ({@code src/Main.java}).
 *
 * @param classes names of classes with or without their package; the first one that there is counts
 * @param method the method; null where it is the usual one
 */
record Code(List<String> classes, String method) {
    private static final List<String> USUAL = List.of("Handler", "HandlerKt", "Main", "MainKt");

    static Code named(String handler) {
        String[] parts = handler.split("::|[:#]", 2);
        String name = parts[0];
        String method = parts.length > 1 ? parts[1] : null;
        if (name.endsWith(".java") || name.endsWith(".kt")) {
            String file = name.substring(name.lastIndexOf('/') + 1, name.lastIndexOf('.'));
            String capital = Character.toUpperCase(file.charAt(0)) + file.substring(1);
            return new Code(List.of(capital, capital + "Kt"), method);
        }
        if (method == null && name.indexOf('.') < 0 && Character.isLowerCase(name.charAt(0))) {
            return new Code(USUAL, name.equals("handle") ? null : name);
        }
        return new Code(List.of(name), method);
    }

    /** Finds the class, which is not initialised. */
    Class<?> find() throws IOException, ClassNotFoundException {
        for (String name : classes) {
            try {
                return load(name);
            } catch (ClassNotFoundException elsewhere) {
                continue;
            }
        }
        Set<String> known = packaged();
        for (String name : classes) {
            List<String> found = known.stream().filter(full -> full.endsWith("." + name)).collect(Collectors.toList());
            if (found.size() > 1) {
                throw new ClassNotFoundException("there are several classes " + name + ", so the handler must say which: "
                        + String.join(", ", found));
            }
            if (found.size() == 1) {
                return load(found.get(0));
            }
        }
        List<String> some = known.stream().filter(full -> full.indexOf('$') < 0).limit(20).collect(Collectors.toList());
        throw new ClassNotFoundException("there is no class " + String.join(" or ", classes) + " in the code; set `handler` to one of: "
                + String.join(", ", some));
    }

    private static Class<?> load(String name) throws ClassNotFoundException {
        return Class.forName(name, false, Code.class.getClassLoader());
    }

    /** Names of all classes of the user's own: those in the jars that are not libraries. */
    private static Set<String> packaged() throws IOException {
        Set<String> names = new TreeSet<>();
        for (String jar : System.getProperty("java.class.path").split(File.pathSeparator)) {
            if (!jar.contains("lib/") && !jar.endsWith("/shim.jar")) {
                try (JarFile file = new JarFile(jar)) {
                    file.stream().map(entry -> entry.getName()).filter(Code::isClass)
                            .forEach(name -> names.add(name.substring(0, name.length() - 6).replace('/', '.')));
                }
            }
        }
        return names;
    }

    private static boolean isClass(String entry) {
        return entry.endsWith(".class") && !entry.startsWith("META-INF/");
    }
}
