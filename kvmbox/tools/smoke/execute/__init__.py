"""How the tests of a suite are run: here, in warm processes, on Dask workers."""
