"""Backups: what they hold, and what becomes of them."""
