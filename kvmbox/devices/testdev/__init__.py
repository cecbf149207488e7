"""The test device of kvm-unit-tests."""
