"""ELF executables, and the way of those that follow no protocol."""
