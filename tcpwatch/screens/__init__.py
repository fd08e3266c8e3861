"""The pages and screens of the terminal UI."""
