package martlet;

/**
 * What is the same for all requests of an instance.
 *
 * @param function the name of the function
 * @param revision its revision that runs
 * @param memory the limit of memory, in bytes
 * @param concurrency how many requests run here at once, at most
 */
public record Context(String function, int revision, long memory, int concurrency) {}
