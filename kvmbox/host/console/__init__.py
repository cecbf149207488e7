"""Output and input of the guest's ports: terminals, files, pipes, a program; keys and mouse events.

Bytes from and to a port, wherever the other end is. What a byte means to a device, and which port gets which
end, are not decided here.
"""
