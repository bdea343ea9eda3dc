"""Decides and never acts: pure functions, with the time as an argument."""
