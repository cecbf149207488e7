"""What the ports of the console have printed, kept for a page.

It keeps text, bounded. The page that shows it is `tools.html`.
"""
