"""What a report says about a guest that has come to a bad end.

`explain` finds the reasons; this asks it at the end of a run, and puts its text and data into the result.
"""
