"""Requests enter here: admission, routing, dispatch."""
