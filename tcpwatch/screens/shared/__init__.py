"""Parts of several screens: header, filter line, marks of states, export."""
