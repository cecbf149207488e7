"""The text screen of a guest: from memory and registers to text and data.

Readers of registers and memory, and ways to show what they say: text, pictures, terminals. The registers
themselves are models.
"""
