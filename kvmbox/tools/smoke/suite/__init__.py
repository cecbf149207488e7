"""What a suite is: files that describe it, its tests, and the verdict of each."""
