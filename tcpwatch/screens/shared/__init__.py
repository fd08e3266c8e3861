"""What several screens share: header, filter line, marks of states, export."""
