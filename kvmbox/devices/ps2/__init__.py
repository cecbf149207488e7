"""The 8042 keyboard controller with its PS/2 keyboard and PS/2 mouse."""
