"""The client with a session: real sockets, servers of one process, and a wire that loses answers."""
