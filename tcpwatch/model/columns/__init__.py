"""The columns of a socket."""
