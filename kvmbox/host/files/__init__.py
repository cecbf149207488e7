"""Files that are written, found or checked with care, whatever they are for.

No device is known here. Whoever needs care beyond `open` finds it here, once.
"""
