"""pgjobq measured beside its raw floors: `make bench`. Each measure has a module; `python loadtests/bench` runs all."""
