"""An example: a shop that writes an invoice for each order."""
