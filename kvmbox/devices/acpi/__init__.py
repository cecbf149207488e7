"""ACPI power management, and the ports with which other machines power off."""
