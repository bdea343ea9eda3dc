"""What unix sockets ask of their paths."""

MAX_SOCKET_PATH = 107
"""Bytes; the kernel keeps one more for the end."""
