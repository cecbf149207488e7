"""The 8042 keyboard controller with its PS/2 keyboard and PS/2 mouse.

Keys and movements come in as input. Which key makes a character, and what a terminal sends for it, is
`host.console`.
"""
