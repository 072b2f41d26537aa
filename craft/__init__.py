"""craft: replicated state machines with many leaders and one merged log."""
