"""Output and input of the guest's ports: terminals, files, pipes, a program; keys and mouse events."""
