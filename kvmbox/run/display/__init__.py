"""The window of a VGA and the text screen, as far as the core of a run knows them.

Windows of memory between model and guest, and when they are read. What a picture looks like is
`parts.screen`.
"""
