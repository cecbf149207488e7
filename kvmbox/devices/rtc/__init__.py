"""The MC146818A real-time clock with its CMOS RAM."""
