"""HTTP over the engine: keys, transactions and the merged log for whoever speaks JSON and curl.

`limits`, `problems`, `exposition` < `texts` < `asking`, `feed`, `listing` < `bodies`, `guard` < `house`
< `resource` < `keys`, `transactions`, `changes`, `openapi` < `about` < `app` < `door`. Up to `listing` all is
pure, and only the door knows sockets.
"""
