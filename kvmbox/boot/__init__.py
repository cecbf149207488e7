"""From an image file to guest memory and the first registers."""
