"""What format version 1 and protocol version 1 look like, kept for ever: later versions read it."""
