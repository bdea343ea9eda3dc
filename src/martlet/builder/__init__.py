"""Builds: from what people upload, and the dependencies it names, to packages."""
