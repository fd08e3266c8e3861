"""Tables that draw only the visible rows."""
