package martlet.shim;

import martlet.Request;

/** The user's code, ready to be called. */
@FunctionalInterface
interface Handler {
    /** Returns whatever may be returned to {@link Answer}. */
    Object handle(Request request) throws Throwable;
}
