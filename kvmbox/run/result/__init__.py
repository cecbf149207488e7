"""How a run ended, and what it did.

Data and text about a run that has ended. Who decided the end is `base.judge` and `run.loop`.
"""
