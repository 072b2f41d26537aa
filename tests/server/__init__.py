"""The Trio shell."""
