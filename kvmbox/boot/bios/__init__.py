"""Boot sectors: the built-in BIOS starts, and loads them from their disk."""
