"""`kvmbox config`: configuration files, their schemas, and the documents of --json."""
