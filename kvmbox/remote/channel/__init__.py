"""The connection to the models of one device process: requests, replies, effects, deadlines."""
