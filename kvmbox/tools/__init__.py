"""Tools on top of the public API: each is loaded by its command alone."""
