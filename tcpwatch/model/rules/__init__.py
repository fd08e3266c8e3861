"""Rules that turn a View into findings, one small module per family of rules."""
