"""Scenes: situations of a whole host, each described in a TOML file, and the processes that play them."""
