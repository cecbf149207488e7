"""The data between the VMM and the sandbox: frames, layouts, effects. Pure."""
