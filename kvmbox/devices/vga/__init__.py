"""A VGA with the display interface of Bochs."""
