"""The tests of craft; they mirror its modules. `python -m tests` runs every check there is."""
