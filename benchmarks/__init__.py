"""Measurements against other people's engines; run them with `make bench`."""
