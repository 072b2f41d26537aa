"""The pure engine, driven in virtual time: stories, attacks and chaos."""
