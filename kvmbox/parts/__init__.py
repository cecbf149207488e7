"""Optional features of a run, one folder each. The core imports none of them.

A part imports the core and its own folder. `part.py` is what the core loads if its option is given; nothing
here may be needed by a plain run.
"""
