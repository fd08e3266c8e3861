"""The Half-open screen."""
