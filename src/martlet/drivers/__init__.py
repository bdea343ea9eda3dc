"""How instances are isolated: `driver` is the protocol, beside it what implements it."""
