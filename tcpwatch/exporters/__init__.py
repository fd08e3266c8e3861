"""Writers of CSV and of totals as text."""
