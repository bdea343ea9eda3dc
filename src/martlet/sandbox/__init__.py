"""What the process rung is made of. Each module is usable alone and imports the standard library only.

`launcher` is the place to start reading: it takes the steps of `entrance` and `confining`, in one visible order.
"""
