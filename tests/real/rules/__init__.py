"""Rules on the real kernel, without the scenes."""
