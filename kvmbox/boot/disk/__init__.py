"""What is on a disk or CD image, what makes it bootable, and the way of CDs. Pure, but for the way."""
