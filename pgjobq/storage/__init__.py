"""Where jobs are kept: BaseStorage is the seam, each adapter a module of its own."""
