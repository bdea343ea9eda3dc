"""HTTP/1.1 as Martlet speaks it: a server side, an upstream side, and the exchange that joins them."""
