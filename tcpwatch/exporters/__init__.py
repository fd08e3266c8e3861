"""Writers of CSV, and the fields that each kind of record has there."""
