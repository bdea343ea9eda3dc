package martlet.shim;

import io.openruntimes.Call;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.function.Function;
import martlet.Context;
import martlet.Request;

/** Makes a {@link Handler} of the user's class: it is initialised and instantiated, once. */
final class Loader {
    private static final List<String> USUAL = List.of("handle", "main");

    private final Context context;

    Loader(Context context) {
        this.context = context;
    }

    /** Throws whatever the user's code throws. */
    Handler load(Code code) throws Throwable {
        long began = System.nanoTime();
        Class<?> type = code.find();
        Method method = method(type, code.method());
        if (method == null) {
            @SuppressWarnings("unchecked")
            Function<Request, Object> function = (Function<Request, Object>) instance(type);
            return function::apply;
        }
        method.setAccessible(true);
        Object target = Modifier.isStatic(method.getModifiers()) ? null : instance(type);
        Class<?>[] parameters = method.getParameterTypes();
        Class.forName(type.getName(), true, type.getClassLoader()); // static initialisers belong to loading
        for (Class<?> parameter : parameters) {
            if (isOpenRuntimes(parameter)) {
                Constructor<?> openRuntimes = parameter.getConstructor(Call.class);
                double startup = (System.nanoTime() - began) / 1e9;
                return new OpenRuntimes(
                        call -> invoke(method, target, arguments(parameters, null, openRuntimes.newInstance(call))), startup);
            }
        }
        return request -> invoke(method, target, arguments(parameters, request, null));
    }

    /** The method to call; null where the class is a Function instead. */
    private static Method method(Class<?> type, String name) throws NoSuchMethodException {
        List<Method> candidates = new ArrayList<>(Arrays.asList(type.getDeclaredMethods()));
        candidates.addAll(Arrays.asList(type.getMethods()));
        candidates.removeIf(method -> method.isSynthetic() || !Arrays.stream(method.getParameterTypes()).allMatch(Loader::isKnown));
        for (String wanted : name == null ? USUAL : List.of(name)) {
            Method found = candidates.stream().filter(method -> method.getName().equals(wanted))
                    .max(Comparator.comparingInt(Method::getParameterCount)).orElse(null);
            if (found != null) {
                return found;
            }
        }
        if (name == null && Function.class.isAssignableFrom(type)) {
            return null;
        }
        throw new NoSuchMethodException(type.getName() + " has no method " + (name == null ? "handle" : name)
                + " whose parameters are of the types Request, Context or RuntimeContext");
    }

    private static boolean isKnown(Class<?> parameter) {
        return parameter == Request.class || parameter == Context.class || isOpenRuntimes(parameter);
    }

    private static boolean isOpenRuntimes(Class<?> parameter) {
        return parameter.getName().matches("io\\.openruntimes\\.\\w+\\.RuntimeContext");
    }

    private Object[] arguments(Class<?>[] parameters, Request request, Object openRuntimes) {
        Object[] arguments = new Object[parameters.length];
        for (int index = 0; index < parameters.length; index++) {
            boolean ours = parameters[index] == Context.class;
            arguments[index] = ours ? context : parameters[index] == Request.class ? request : openRuntimes;
        }
        return arguments;
    }

    /** The object of a Kotlin `object`, or a new one. */
    private Object instance(Class<?> type) throws Throwable {
        for (Field field : type.getDeclaredFields()) {
            if (field.getName().equals("INSTANCE") && field.getType() == type && Modifier.isStatic(field.getModifiers())) {
                field.setAccessible(true);
                return field.get(null);
            }
        }
        try {
            for (Constructor<?> constructor : type.getDeclaredConstructors()) {
                if (Arrays.equals(constructor.getParameterTypes(), new Class<?>[] {Context.class})) {
                    constructor.setAccessible(true);
                    return constructor.newInstance(context);
                }
            }
            Constructor<?> constructor = type.getDeclaredConstructor();
            constructor.setAccessible(true);
            return constructor.newInstance();
        } catch (InvocationTargetException error) {
            throw error.getCause();
        } catch (NoSuchMethodException error) {
            throw new NoSuchMethodException(type.getName() + " needs a constructor that takes nothing, or a Context");
        }
    }

    private static Object invoke(Method method, Object target, Object[] arguments) throws Throwable {
        try {
            return method.invoke(target, arguments);
        } catch (InvocationTargetException error) {
            throw error.getCause();
        }
    }
}
