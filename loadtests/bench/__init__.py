"""The bench: it compares pgjobq with raw floors. Each measure has a module, and `make bench` runs all of them."""
