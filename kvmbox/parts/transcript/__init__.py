"""What the ports of the console have printed, kept for a page."""
