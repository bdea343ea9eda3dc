"""Front doors: the APIs of other platforms, translated to Martlet's own and nothing more."""
