"""Backups: a snapshot and the committed logs behind it, in files that vouch for themselves.

`files` the format (docs/reference/backup-format.md) · `taking` from a running server · `reading` with every
check · `restoring` into a new server's directory.
"""
