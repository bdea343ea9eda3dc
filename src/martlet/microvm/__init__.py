"""MicroVMs: the clients of the programs that run them."""
