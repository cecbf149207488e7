"""--core: the state of a guest that has ended, as a core file for gdb."""
