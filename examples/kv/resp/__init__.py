"""The Redis protocol over the engine: one connection's bytes become batches for the log, and replies.

`gate` < `client` < `commands` < `conversation` < `door`. All but the door are free of sockets.
"""
