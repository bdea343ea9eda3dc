"""What Martlet tells about itself: counters, metrics, the history of invocations, its own log."""
