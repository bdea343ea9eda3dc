package io.openruntimes;

import java.util.Map;

/** What a function of Open Runtimes returns. */
public interface Output {
    /** The body. */
    byte[] getBody();

    /** The status. */
    int getStatusCode();

    /** The headers. */
    Map<String, String> getHeaders();
}
