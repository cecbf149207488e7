"""The server of the Remote Framebuffer protocol, for VNC clients. No device of the guest."""
