"""Filter, sort, group, and the rows of Timelines."""
