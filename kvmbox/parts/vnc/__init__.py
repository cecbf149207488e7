"""The guest's screen, keyboard and mouse for a VNC client: --vnc."""
