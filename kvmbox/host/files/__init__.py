"""Files that are written, found or checked with care, whatever they are for."""
