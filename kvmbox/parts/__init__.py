"""Optional features of a run, one folder each. The core imports none of them."""
