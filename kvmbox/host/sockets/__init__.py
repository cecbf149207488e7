"""Where gdb and VNC clients come to."""
