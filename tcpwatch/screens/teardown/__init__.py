"""The Teardown screen."""
