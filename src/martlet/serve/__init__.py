"""The composition root: what runs in which process, wired by hand."""
