"""The text screen of a guest: from memory and registers to text and data."""
