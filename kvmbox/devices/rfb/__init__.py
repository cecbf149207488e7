"""The server of the Remote Framebuffer protocol, for VNC clients. No device of the guest.

The protocol's bytes alone. The sockets are the VMM's, and pictures and keys of the guest are `parts.vnc`.
"""
