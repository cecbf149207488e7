"""The main thread of a run: its loop, periodic checks, end conditions, and pauses of all vCPUs."""
