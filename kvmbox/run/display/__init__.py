"""The window of a VGA and the text screen, as far as the core of a run knows them."""
