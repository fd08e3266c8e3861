"""The Listeners screen."""
