"""What Martlet remembers: the store and its typed view, blobs, and queues."""
