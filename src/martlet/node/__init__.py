"""Instances live here: a pool for each revision, and the cells that pools grow from."""
