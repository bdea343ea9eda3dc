"""A target with a fault, to see that the fuzzer finds one."""

SEEDS = [b"good"]


def check(data: bytes) -> None:
    """Fails for what begins with ``bad``, which only coverage leads to."""
    if data[:1] == b"b" and data[1:2] == b"a" and data[2:3] == b"d":
        raise AssertionError("the planted fault")
