"""Images: roots of containers, kept by what they hold.

`store` keeps them, `oci` reads archives that others have made, `engine` takes them out of Docker and podman, `debian`
makes small ones of this machine's own mirrors, `scan` says what is in them.
"""
