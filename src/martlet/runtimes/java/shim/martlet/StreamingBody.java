package martlet;

import java.io.OutputStream;

/** A body that is written as it comes to be. */
@FunctionalInterface
public interface StreamingBody {
    /** Writes the body; what is flushed is sent at once. */
    void writeTo(OutputStream out) throws Exception;
}
