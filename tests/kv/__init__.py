"""The key-value example: its engine against stories, a real Redis, and the simulator."""
