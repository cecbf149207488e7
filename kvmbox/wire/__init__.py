"""What the VMM and the sandbox say to each other: frames, layouts, effects. Pure."""
