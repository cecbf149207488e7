"""The trusted helper: host input and output, clocks and timers on behalf of device processes."""
