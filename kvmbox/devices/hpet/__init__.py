"""The High Precision Event Timers."""
