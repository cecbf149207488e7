"""The guest's screen, keyboard and mouse for a VNC client: --vnc.

Keys, pointer and pictures between the guest and the model of the protocol. The protocol is `devices.rfb`.
"""
