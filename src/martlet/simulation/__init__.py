"""What policies would have cost, found out by replaying a trace of invocations."""
