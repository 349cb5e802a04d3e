"""Readers: one kind of file each, from bytes to text with its structure."""
