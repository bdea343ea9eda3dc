"""What Martlet remembers: the store and its typed view, and blobs."""
