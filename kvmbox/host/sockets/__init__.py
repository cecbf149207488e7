"""Where gdb and VNC clients come to.

It listens, accepts and cleans up. The protocol that follows is a part's: gdb, vnc.
"""
