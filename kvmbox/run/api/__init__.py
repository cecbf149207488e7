"""What drives a run from a program: `Machine`, its asyncio twin, calls, and the words of the monitor."""
