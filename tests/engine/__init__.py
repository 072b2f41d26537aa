"""The pure engine, driven in virtual time: stories and attacks."""
