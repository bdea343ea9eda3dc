"""Packages: the files of a revision, or its dependencies, named by what they hold.

An upload becomes a folder (`staging`, fed by `archive`), a folder becomes a package (`pack`), a package becomes a
folder again where functions run (`unpack`). Whatever breaks a rule of `rules` is refused with a sentence that names
the entry; nothing is kept of it.
"""
