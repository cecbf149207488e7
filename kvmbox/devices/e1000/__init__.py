"""The Intel 82540EM network interface, known as e1000."""
