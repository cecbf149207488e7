"""Smoke boots: a suite of guests is booted, and each test gets a verdict that can be trusted.

The core is pure: what a suite says (`suite_file`, `unittests_cfg`), what the end of a boot means
(`conventions`, `guest_reports`, `verdict`), which test comes when (`schedule`, `session`), and what is
told of it (`report_*`). `engine` connects the core with an executor, which boots guests somewhere.
"""
